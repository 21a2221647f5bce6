// A model's tensors with small random numbers in place of the real ones: for measuring, where what is computed does not
// matter but how long it takes. Of the real model nothing but the header is read.
#pragma once

#include <memory>

#include "model/model_info.h"

namespace shoal {

// The same model with such tensors; the file's header stays what it is, for who reads that anew (offload/). Types that
// cannot be quantized to without knowing the model are zero bytes.
std::shared_ptr<const ModelFile> WithMadeUpWeights(const ModelFile& model);

}  // namespace shoal
