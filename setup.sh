#!/bin/sh
# Prepares a fresh machine: Deno where it is missing (from npm), a software Vulkan driver where there is no GPU driver
# (Debian's mesa-vulkan-drivers), and the project's npm packages. Asks nothing; safe to run again.
set -eu
cd "$(dirname "$0")"

say() { printf 'setup: %s\n' "$*"; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null 2>&1; then sudo "$@"
  else say "cannot run '$*' without root: run it yourself and start setup.sh again"; exit 1
  fi
}

DENO_VERSION=2.9.6
if command -v deno >/dev/null 2>&1; then
  say "found $(deno --version | head -n 1)"
elif command -v npm >/dev/null 2>&1; then
  say "installing Deno $DENO_VERSION from npm"
  if [ -w "$(npm prefix -g)" ]; then npm install -g --silent "deno@$DENO_VERSION"
  else as_root npm install -g --silent "deno@$DENO_VERSION"
  fi
else
  say "neither deno nor npm is here: install one of them (https://docs.deno.com/runtime/getting_started/installation)"
  exit 1
fi

if [ "$(uname -s)" = Linux ]; then
  drivers=$(ls /usr/share/vulkan/icd.d/*.json /etc/vulkan/icd.d/*.json 2>/dev/null || true)
  loader=$(ldconfig -p 2>/dev/null | grep -c 'libvulkan\.so\.1' || true)
  if { [ -z "$drivers" ] && [ -z "${VK_DRIVER_FILES:-}" ] && [ -z "${VK_ICD_FILENAMES:-}" ]; } || [ "$loader" = 0 ]; then
    if command -v apt-get >/dev/null 2>&1; then
      say "no Vulkan driver found: installing Mesa's software driver"
      as_root apt-get update -qq
      as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq mesa-vulkan-drivers libvulkan1 >/dev/null
    else
      say "no Vulkan driver found: install your GPU's driver, or Mesa's lavapipe"
    fi
  else
    say "found a Vulkan driver"
  fi
fi

say "installing npm packages"
deno install --frozen --quiet
say "done"
