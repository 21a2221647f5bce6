#!/usr/bin/env bash
# Everything a phone needs, in Termux (from F-Droid or GitHub), one command:
#   scripts/termux.sh [--no-packages] [--no-build] [--no-service] [-- OPTIONS OF shoal up]
# installs packages, builds for this phone's CPU, installs shoal into $PREFIX, sets up the service with its wake lock,
# start with the phone and home-screen shortcuts, and says what only you can do. Again: updates, and without options
# after -- the service keeps those that it has.
#   scripts/termux.sh --uninstall      removes the service and the program; keys and models in ~/.shoal stay
# docs/termux.md tells what goes wrong and why.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly ROOT
readonly PACKAGES=(clang cmake ninja rust python python-pip git ccache cli11 openssl libandroid-spawn termux-services
  termux-api termux-tools)
readonly PARTS=(bin/shoal lib/shoal share/doc/shoal)   # of what is installed

say() { printf '%s\n' "$@"; }
die() { say "termux.sh: $*" >&2; exit 1; }

install_packages() {
  say "== packages"
  # Termux mixes no old and new packages: a library that is newer than its user breaks it.
  # -y does not answer dpkg's question about a configuration file that was changed here.
  pkg upgrade -y -o Dpkg::Options::=--force-confold
  pkg install -y "${PACKAGES[@]}"
}

# ./dev runs two compilers at once, or one where little memory is free: Android kills what fills it.
build() {
  say "== build for this phone's CPU (some half an hour; keep the screen on or take the wake lock)"
  # Given back at the end, whatever that is, but for a service that runs: the lock is one for all of Termux.
  trap 'service_runs || termux-wake-unlock || true' EXIT
  termux-wake-lock || true
  (cd "$ROOT" && ./dev build phone shoal)
  cmake --build "$ROOT/build/phone" --target sbom || say "no list of what is inside: it could not be made"
}

service_runs() { [[ -e $PREFIX/var/service/shoal/run ]] && sv status shoal 2>&1 | grep -q '^run:'; }

# Whole beside the one before first, then in its place: what cannot be installed leaves that as it is, and no backend of
# an earlier build stays, which would still be chosen.
install_program() {
  say "== install into $PREFIX"
  local new=$PREFIX/shoal.new part
  rm -rf "$new"
  cmake --install "$ROOT/build/phone" --prefix "$new" --component shoal --strip
  remove_program
  for part in "${PARTS[@]}"; do
    [[ -e $new/$part ]] || continue
    mkdir -p "$PREFIX/${part%/*}"
    mv "$new/$part" "$PREFIX/$part"
  done
  rm -rf "$new"
  mkdir -p "$HOME/.shoal/models"
  "$PREFIX/bin/shoal" --version
}

remove_program() { (cd "$PREFIX" && rm -rf "${PARTS[@]}"); }

# What `shoal service uninstall` does, where the program does not start any more or is gone.
remove_service() {
  if [[ -e $PREFIX/var/service/shoal ]]; then
    sv-disable shoal || true
    sv shutdown shoal || true
    termux-wake-unlock || true
    rm -rf "$PREFIX/var/service/shoal"
  fi
  rm -f "$HOME/.termux/boot/shoal" "$HOME/.shortcuts/shoal "{start,stop,status}
}

uninstall() {
  if [[ ! -x $PREFIX/bin/shoal ]] || ! "$PREFIX/bin/shoal" service uninstall; then remove_service; fi
  remove_program
  say "removed; what the node knows is still in $HOME/.shoal (rm -r to forget it)"
}

main() {
  [[ ${PREFIX:-} == *com.termux* ]] || die "this is for Termux; elsewhere: ./dev build, cmake --install build/release"
  # A session that began before termux-services was installed has no SVDIR. A node departs for up to 10 s.
  export SVDIR=$PREFIX/var/service SVWAIT=30
  local packages=yes build=yes service=yes up=()
  while (($#)); do
    case $1 in
      --no-packages) packages=no ;;
      --no-build) build=no ;;
      --no-service) service=no ;;
      --uninstall) uninstall; return ;;
      --) shift; up=("$@"); break ;;
      *) die "unknown option $1; the first lines of this script tell" ;;
    esac
    shift
  done
  [[ $packages == no ]] || install_packages
  [[ $build == no ]] || build
  install_program
  if [[ $service == yes && -e $PREFIX/var/service/shoal/run && ${#up[@]} == 0 ]]; then
    say "== service: keeps its options, starts again with the new program"
    # Fails too where runit does not run; it starts the service by itself.
    sv restart shoal || service-daemon start || say "start it by hand: exit, open Termux again, then: sv up shoal"
  elif [[ $service == yes ]]; then
    say "== service"
    "$PREFIX/bin/shoal" service install --kind termux -- ${up[@]+"${up[@]}"} ||
      say "the service may not have started; exit, open Termux again, then: sv status shoal"
  fi
  say "== this phone"
  "$PREFIX/bin/shoal" doctor || true
  say "" "the battery is known only with the app Termux:API beside its package; from where Termux came"
  say "next: put a model into ~/.shoal/models, then shoal status; docs/cli.md"
}

main "$@"
