// Some rows of each type and width are made, and every tensor repeats them.
#include "engine/made_up_weights.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "engine/made_up_rows.h"
#include "ggml.h"

namespace shoal {
namespace {

constexpr std::uint64_t kWidthMax = 1U << 20;  // of a row; wider ones stay zero bytes

using Rows = std::vector<std::uint8_t>;  // of one type and width

struct Piece {
  std::uint64_t begin = 0, end = 0;  // in the file
  std::shared_ptr<const Rows> rows;  // null: zeros
};

bool CanBeMade(ggml_type type) {
  if (type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16) return true;
  if (type == GGML_TYPE_Q8_1 || type == GGML_TYPE_Q8_K) return false;  // of values on their way, not of weights
  return ggml_is_quantized(type) && !ggml_quantize_requires_imatrix(type);
}

Rows Ones(ggml_type type, std::int64_t width) {  // norms, factors
  const std::vector<float> values(static_cast<std::size_t>(width), 1.0F);
  Rows row(ggml_row_size(type, width));
  ggml_quantize_chunk(type, values.data(), row.data(), 0, 1, width, nullptr);
  return row;
}

class MadeUpReader : public TensorReader {
 public:
  MadeUpReader(std::shared_ptr<const std::vector<Piece>> pieces, std::shared_ptr<const TensorSource> header,
               std::uint64_t header_bytes)
      : pieces_(std::move(pieces)), header_(std::move(header)), header_bytes_(header_bytes) {}

  Status Read(std::uint64_t offset, std::span<std::uint8_t> out) override {
    if (offset < header_bytes_) {
      const std::uint64_t count = std::min<std::uint64_t>(out.size(), header_bytes_ - offset);
      SHOAL_ASSIGN_OR_RETURN(const std::unique_ptr<TensorReader> reader, header_->Open());
      SHOAL_RETURN_IF_ERROR(reader->Read(offset, out.first(count)));
      out = out.subspan(count);
      offset += count;
    }
    std::fill(out.begin(), out.end(), std::uint8_t{0});
    const std::uint64_t end = offset + out.size();
    auto piece = std::upper_bound(pieces_->begin(), pieces_->end(), offset,
                                  [](std::uint64_t at, const Piece& one) { return at < one.end; });
    for (; piece != pieces_->end() && piece->begin < end; ++piece) {
      if (piece->rows == nullptr) continue;
      const std::uint64_t all = piece->rows->size();
      for (std::uint64_t at = std::max(offset, piece->begin); at < std::min(end, piece->end);) {
        const std::uint64_t from = (at - piece->begin) % all;
        const std::uint64_t count = std::min({all - from, end - at, piece->end - at});
        std::copy_n(piece->rows->data() + from, count, out.data() + (at - offset));
        at += count;
      }
    }
    return {};
  }

 private:
  std::shared_ptr<const std::vector<Piece>> pieces_;
  const std::shared_ptr<const TensorSource> header_;
  const std::uint64_t header_bytes_;
};

class MadeUpSource : public TensorSource {
 public:
  explicit MadeUpSource(const ModelFile& model) : header_(model.source), header_bytes_(model.gguf.data_offset) {
    std::vector<Piece> pieces;
    std::map<std::pair<std::uint32_t, std::uint64_t>, std::shared_ptr<const Rows>> known;
    for (const GgufTensor& tensor : model.gguf.tensors) {
      Piece piece{model.gguf.data_offset + tensor.offset, model.gguf.data_offset + tensor.offset + tensor.bytes, {}};
      const auto info = GetTensorTypeInfo(tensor.type);
      const auto type = static_cast<ggml_type>(tensor.type);
      if (info && !tensor.dims.empty() && tensor.dims[0] <= kWidthMax && CanBeMade(type)) {
        const auto width = static_cast<std::int64_t>(tensor.dims[0]);
        const bool is_vector = tensor.dims.size() == 1;
        const auto key = std::pair(tensor.type * 2 + (is_vector ? 1 : 0), tensor.dims[0]);
        std::shared_ptr<const Rows>& rows = known[key];
        if (rows == nullptr) {
          rows = std::make_shared<const Rows>(is_vector ? Ones(type, width) : MadeUpRows(type, width));
        }
        piece.rows = rows;
      }
      pieces.push_back(std::move(piece));
    }
    std::sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) { return a.begin < b.begin; });
    pieces_ = std::make_shared<const std::vector<Piece>>(std::move(pieces));
  }

  Result<std::unique_ptr<TensorReader>> Open() const override {
    return std::unique_ptr<TensorReader>(std::make_unique<MadeUpReader>(pieces_, header_, header_bytes_));
  }

 private:
  std::shared_ptr<const std::vector<Piece>> pieces_;
  const std::shared_ptr<const TensorSource> header_;
  const std::uint64_t header_bytes_;
};

}  // namespace

std::shared_ptr<const ModelFile> WithMadeUpWeights(const ModelFile& model) {
  auto made_up = std::make_shared<ModelFile>(model);
  made_up->source = std::make_shared<MadeUpSource>(model);
  return made_up;
}

}  // namespace shoal
