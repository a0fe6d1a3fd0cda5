#!/usr/bin/env bash
# Runs a command on Mesa 25, from the backports of Debian 12, whose own Mesa is 22.3: a second driver for the tests.
#
#     tests/newer_driver.sh COMMAND [ARGUMENT...]
#
# Its packages are unpacked into a temporary folder; nothing is installed, replaced or left. Where they cannot be had, or
# there is a Mesa of 25 or above already, it says so and runs nothing.
set -euo pipefail

skip() {
  printf 'newer driver: skipped, as %s\n' "$*"
  exit 0
}

[ $# -gt 0 ] || { echo 'usage: tests/newer_driver.sh COMMAND [ARGUMENT...]' >&2; exit 2; }
# shellcheck disable=SC1091
release=$( (. /etc/os-release && echo "${ID:-} ${VERSION_CODENAME:-}") 2>/dev/null || true)
[ "$release" = 'debian bookworm' ] || skip "the backports are for Debian 12"
for tool in apt-get dpkg dpkg-query; do command -v "$tool" >/dev/null || skip "there is no $tool"; done
installed=$(dpkg-query -W -f '${Version}' mesa-vulkan-drivers 2>/dev/null || echo 0)
if dpkg --compare-versions "$installed" ge 25; then skip "Mesa $installed is installed"; fi

# The mirror that the system itself is told to use.
mirror=$(sed -n 's/^URIs: *\([^ ]*\/debian\)\/* *$/\1/p' /etc/apt/sources.list.d/*.sources 2>/dev/null | head -n 1)
[ -n "$mirror" ] ||
  mirror=$(sed -nE 's/^deb +(\[[^]]*\] +)?([^ ]*\/debian)\/* +bookworm +.*/\2/p' /etc/apt/sources.list \
    /etc/apt/sources.list.d/*.list 2>/dev/null | head -n 1)
[ -n "$mirror" ] || skip "no mirror of Debian is among apt's sources"

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir -p "$folder/lists/partial" "$folder/archives/partial" "$folder/packages"
signed=/usr/share/keyrings/debian-archive-keyring.gpg
for suite in bookworm bookworm-backports; do echo "deb [signed-by=$signed] $mirror $suite main"; done >"$folder/sources.list"
apt=(apt-get -qq -o APT::Sandbox::User="$(id -un)" -o Acquire::Retries=2
  -o Dir::Etc::sourcelist="$folder/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::Lists="$folder/lists"
  -o Dir::Cache="$folder" -o Dir::Cache::archives="$folder/archives")
fetch() {
  "${apt[@]}" update && cd "$folder/packages" &&
    "${apt[@]}" download {mesa-vulkan-drivers,libdrm2,libdrm-amdgpu1}/bookworm-backports libllvm15/bookworm
}
(fetch) >"$folder/log" 2>&1 || skip "backports cannot be reached at $mirror: $(tail -n 1 "$folder/log")"
for package in "$folder"/packages/*.deb; do dpkg -x "$package" "$folder/root"; done

libraries=$(dirname "$(find "$folder/root/usr/lib" -name 'libvulkan_lvp.so' | head -n 1)")
[ -f "$libraries/libvulkan_lvp.so" ] || skip "the package holds no software driver"
printf '{"file_format_version":"1.0.0","ICD":{"library_path":"%s","api_version":"1.4.0"}}\n' \
  "$libraries/libvulkan_lvp.so" >"$folder/driver.json"
version=$(dpkg-deb -f "$folder"/packages/mesa-vulkan-drivers_*.deb Version)
printf 'newer driver: Mesa %s\n' "$version"
status=0
LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" VK_ICD_FILENAMES="$folder/driver.json" \
  VK_DRIVER_FILES="$folder/driver.json" MESA_SHADER_CACHE_DIR="$folder/cache" "$@" || status=$?
exit "$status"
