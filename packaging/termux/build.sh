# A recipe for Termux's package tree: a copy of it as packages/shoal/build.sh there, then ./build-package.sh shoal.
# Version and hash are set for each release. Portable: one CPU backend for each instruction set, chosen at start.
TERMUX_PKG_HOMEPAGE=https://example.invalid/shoal
TERMUX_PKG_DESCRIPTION="Phones, boards and laptops run one language model together"
TERMUX_PKG_LICENSE="Apache-2.0"
TERMUX_PKG_MAINTAINER="@termux"
TERMUX_PKG_VERSION="0.1.0"
TERMUX_PKG_SRCURL=https://example.invalid/shoal/archive/v${TERMUX_PKG_VERSION}.tar.gz
TERMUX_PKG_SHA256=SKIP_CHECKSUM
TERMUX_PKG_DEPENDS="libandroid-spawn, libc++, openssl"
TERMUX_PKG_RECOMMENDS="termux-services, termux-api"
TERMUX_PKG_BUILD_DEPENDS="cli11"
TERMUX_PKG_BUILD_IN_SRC=false
TERMUX_PKG_EXCLUDED_ARCHES="arm, i686"
# The backends are in lib/shoal, where only a RUNPATH leads. The tree's own options say SKIP_INSTALL_RPATH=ON, and these
# come after them. Where CMake compiles for Android from elsewhere it writes no RUNPATH at all: the linker is told, too.
TERMUX_PKG_EXTRA_CONFIGURE_ARGS="-DSHOAL_TESTS=OFF -DSHOAL_CPU_VARIANTS=ON -DCMAKE_SKIP_INSTALL_RPATH=OFF"

termux_step_pre_configure() {
  termux_setup_rust
  LDFLAGS+=" -Wl,-rpath=$TERMUX_PREFIX/lib/shoal"
  TERMUX_PKG_EXTRA_CONFIGURE_ARGS+=" -DSHOAL_CARGO_TARGET=$CARGO_TARGET_NAME"
  [[ $TERMUX_ARCH != aarch64 ]] || TERMUX_PKG_EXTRA_CONFIGURE_ARGS+=" -DSHOAL_KLEIDIAI_DIR=fetch"
}

# What is installed, without the benchmarks.
termux_step_make() {
  cmake --build "$TERMUX_PKG_BUILDDIR" -j "$TERMUX_PKG_MAKE_PROCESSES" --target shoal
}

termux_step_make_install() {
  cmake --build "$TERMUX_PKG_BUILDDIR" --target sbom
  cmake --install "$TERMUX_PKG_BUILDDIR" --prefix "$TERMUX_PREFIX" --component shoal --strip
}
