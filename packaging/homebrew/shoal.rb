# A formula for a tap. Address and hash are set for each release. For the CPU of the machine that builds it, for which
# Homebrew's compilers must keep the options that say so; without Metal: docs/devices.md has the options for that.
class Shoal < Formula
  desc "Phones, boards and laptops run one language model together"
  homepage "https://example.invalid/shoal"
  url "https://example.invalid/shoal/archive/v0.1.0.tar.gz"
  license "Apache-2.0"

  depends_on "cli11" => :build
  depends_on "cmake" => :build
  depends_on "ninja" => :build
  depends_on "python@3.12" => :build
  depends_on "rust" => :build
  depends_on "openssl@3"

  def install
    # llama.cpp's pinned source comes by pip, into the build's own folder.
    ENV["SHOAL_CACHE_DIR"] = buildpath/"cache"
    # Else -march and -mcpu are dropped, and the kernels are those of the oldest CPU that Homebrew supports.
    ENV.runtime_cpu_detection
    system "cmake", "-S", ".", "-B", "build", "-G", "Ninja", "-DSHOAL_TESTS=OFF", *std_cmake_args
    system "cmake", "--build", "build", "--target", "shoal", "sbom"
    system "cmake", "--install", "build", "--component", "shoal"
  end

  service do
    run [opt_bin/"shoal", "up", "--quiet", "--log-file", var/"log/shoal.log"]
    keep_alive true
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/shoal --version")
    assert_match "CPU kernels", shell_output("#{bin}/shoal device")
  end
end
