// Bionic's header of that name, for libc++: glibc has what it declares in locale.h.
#pragma once
#include <locale.h>
