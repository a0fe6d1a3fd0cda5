# The program with what it needs: Deno, Open MPI, the loader that finds NVIDIA's Vulkan driver, which the container toolkit
# brings in where a GPU is given, and Mesa's drivers for the rest, of which one runs on the processor.
#
#   docker build -t sparse-attention .
#   docker run --rm --gpus all -v "$PWD/runs:/app/runs" sparse-attention deno task sparsify --model MODEL --data PATH
FROM denoland/deno:bin-2.9.6 AS deno

FROM debian:12-slim
COPY --from=deno /deno /usr/local/bin/deno
# libEGL, libGL and libXext are what NVIDIA's Vulkan driver is linked to.
RUN apt-get update \
  && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates libegl1 libgl1 \
    libvulkan1 libxext6 mesa-vulkan-drivers openmpi-bin openssh-client vulkan-tools \
  && rm -rf /var/lib/apt/lists/*
# Vulkan comes with the capability graphics alone: the toolkit's default is compute and utility.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=graphics,utility
ENV OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
# Where Mesa looks for the user's sockets; it says so where there is none.
ENV XDG_RUNTIME_DIR=/tmp
WORKDIR /app
COPY deno.json deno.lock ./
RUN deno install --frozen --quiet
COPY . .
CMD ["deno", "task", "sparsify", "--help"]
