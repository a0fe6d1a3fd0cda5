import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { AdapterError, findAdapter, findAdapters } from "../../../kernels/core/gpu_adapters.ts";
import { Gpu } from "../../../kernels/core/gpu.ts";
import { gpuTest } from "../../support/gpu.ts";

const BACKEND = "DENO_WEBGPU_BACKEND";

/** An adapter of a machine that is made up, by what WebGPU tells of it. */
interface Card {
  description: string;
  backend: string;
  kind: "discrete" | "integrated" | "software";
  device?: string;
}

/** Two cards, each by both of their drivers, and a CPU driver. */
const CARDS: readonly Card[] = [
  { description: "NVIDIA GeForce RTX 3090", backend: "vulkan", kind: "discrete" },
  { description: "Intel(R) UHD 770", backend: "vulkan", kind: "integrated" },
  { description: "llvmpipe (LLVM 15.0.6, 256 bits)", backend: "vulkan", kind: "software" },
  { description: "NVIDIA GeForce RTX 3090/PCIe/SSE2", backend: "opengl", kind: "discrete" },
];

/**
 * Gives adapters as Deno does: the first of the kind that was asked for, on the backends that the variable allows.
 *
 * @param body gets the backends that are asked
 */
async function withCards(
  cards: readonly Card[],
  body: (asked: Set<string | undefined>) => Promise<void>,
): Promise<void> {
  const asked = new Set<string | undefined>();
  const original = navigator.gpu.requestAdapter;
  navigator.gpu.requestAdapter = (options = {}) => {
    const allowed = Deno.env.get(BACKEND);
    asked.add(allowed);
    const there = cards.filter(({ backend }) => allowed === undefined || backend === allowed);
    const order = options.forceFallbackAdapter
      ? ["software"]
      : options.powerPreference === "low-power"
      ? ["integrated", "discrete", "software"]
      : ["discrete", "integrated", "software"];
    const card = order.map((kind) => there.find((card) => card.kind === kind)).find((card) => card);
    if (!card) return Promise.resolve(null);
    const { description, device = "1" } = card;
    const info = { description, vendor: "4318", architecture: "", device };
    return Promise.resolve({
      info,
      limits: {},
      features: new Set(),
      requestDevice: () => Promise.reject(new Error(`opened ${description}`)),
    } as unknown as GPUAdapter);
  };
  try {
    await body(asked);
  } finally {
    navigator.gpu.requestAdapter = original;
  }
}

const nameOf = async (wanted?: string): Promise<string> => {
  const { description: { name, backend } } = await findAdapter(wanted);
  return `${name} by ${backend}`;
};

Deno.test("the adapters that there are are found once each, the one that is taken by itself first", async () => {
  await withCards(CARDS, async () => {
    assertEquals(
      (await findAdapters()).map(({ description: { name, backend } }) => `${name} by ${backend}`),
      [
        "NVIDIA GeForce RTX 3090 by Vulkan",
        "Intel(R) UHD 770 by Vulkan",
        "llvmpipe (LLVM 15.0.6, 256 bits) by Vulkan",
        "NVIDIA GeForce RTX 3090/PCIe/SSE2 by OpenGL",
      ],
    );
    assertEquals(Deno.env.get(BACKEND), undefined, "what was asked with is put back");
  });
});

Deno.test("an adapter is chosen by a part of its name in any case, by its backend, or by its number", async () => {
  await withCards(CARDS, async () => {
    const nvidia = "NVIDIA GeForce RTX 3090 by Vulkan";
    assertEquals(await nameOf(), nvidia);
    assertEquals(await nameOf("3090"), nvidia, "a name may be a number, too");
    assertEquals(await nameOf("intel"), "Intel(R) UHD 770 by Vulkan");
    assertEquals(await nameOf("LLVMpipe"), "llvmpipe (LLVM 15.0.6, 256 bits) by Vulkan");
    assertEquals(await nameOf("opengl"), "NVIDIA GeForce RTX 3090/PCIe/SSE2 by OpenGL");
    assertEquals(await nameOf("0"), nvidia);
    assertEquals(await nameOf("1"), "Intel(R) UHD 770 by Vulkan");
    assertEquals(await nameOf("3"), "NVIDIA GeForce RTX 3090/PCIe/SSE2 by OpenGL");
  });
});

Deno.test("a name or a number that no adapter has is refused with those that there are", async () => {
  await withCards(CARDS.slice(0, 2), async () => {
    for (const wanted of ["radeon", "2"]) {
      const { message } = await assertRejects(() => nameOf(wanted), AdapterError);
      assertStringIncludes(message, `Cannot open ${wanted} as no adapter here has that`);
      assertStringIncludes(
        message,
        "number: NVIDIA GeForce RTX 3090 by Vulkan (0); Intel(R) UHD 770 by Vulkan (1)",
      );
    }
  });
  await withCards([], async () => {
    await assertRejects(() => nameOf("radeon"), AdapterError, "no adapter was found");
  });
});

Deno.test("OpenGL is asked only where no other backend has what is wanted", async () => {
  const [nvidia, intel, software, opengl] = CARDS;
  const others = ["vulkan", "metal", "dx12"];
  const found = (cards: Card[], wanted: string | undefined, name: string, backends: string[]) =>
    withCards(cards, async (asked) => {
      assertEquals([await nameOf(wanted), [...asked]], [name, backends]);
    });
  await found([nvidia, opengl], undefined, "NVIDIA GeForce RTX 3090 by Vulkan", ["vulkan"]);
  await found(
    [{ ...nvidia, backend: "dx12" }, software, opengl],
    undefined,
    "NVIDIA GeForce RTX 3090 by DX12",
    others,
  );
  await found([software, opengl], undefined, "llvmpipe (LLVM 15.0.6, 256 bits) by Vulkan", others);
  await found([intel, opengl], "intel", "Intel(R) UHD 770 by Vulkan", others);
  const last = "NVIDIA GeForce RTX 3090/PCIe/SSE2 by OpenGL";
  await found([opengl], undefined, last, [...others, "opengl"]);
  await found([software, opengl], "nvidia", last, [...others, "opengl"]);
});

Deno.test("those who ask at once get what each alone does, whatever becomes of the others", async () => {
  await withCards([{ ...CARDS[0], backend: "metal" }, CARDS[3]], async () => {
    const asked = [undefined, "radeon", "opengl", undefined];
    const [first, none, opengl, last] = await Promise.allSettled(asked.map(nameOf));
    const metal = "NVIDIA GeForce RTX 3090 by Metal";
    assertEquals(first, { status: "fulfilled", value: metal });
    assertEquals(none.status, "rejected");
    assertEquals(opengl, { status: "fulfilled", value: "NVIDIA GeForce RTX 3090/PCIe/SSE2 by OpenGL" });
    assertEquals(last, { status: "fulfilled", value: metal });
    assertEquals(Deno.env.get(BACKEND), undefined, "what was asked with is put back");
  });
});

Deno.test("a backend that the user names is the only one that is asked", async () => {
  Deno.env.set(BACKEND, "opengl");
  try {
    await withCards(CARDS, async () => {
      assertEquals((await findAdapters()).length, 1);
      assertEquals(await nameOf(), "NVIDIA GeForce RTX 3090/PCIe/SSE2 by OpenGL");
      assertEquals(Deno.env.get(BACKEND), "opengl");
    });
  } finally {
    Deno.env.delete(BACKEND);
  }
});

Deno.test("the device is opened on the adapter that was chosen, and without a choice on the fastest", async () => {
  await withCards(CARDS, async () => {
    await assertRejects(() => Gpu.open(), AdapterError, "opened NVIDIA GeForce RTX 3090");
    await assertRejects(() => Gpu.open({ adapter: "intel" }), AdapterError, "opened Intel(R) UHD 770");
    await assertRejects(
      () => Gpu.open({ adapter: "radeon" }),
      AdapterError,
      "Cannot open radeon as no adapter here",
    );
  });
});

gpuTest(
  "a program that may not read the environment opens the same adapter, without asking and without a backend",
  async (gpu) => {
    const script = `import { Gpu } from ${
      JSON.stringify(import.meta.resolve("../../../kernels/core/gpu.ts"))
    };
    const gpu = await Gpu.open({ adapter: "0" });
    console.log(JSON.stringify(gpu.adapter));
    gpu.close();`;
    const command = new Deno.Command(Deno.execPath(), {
      args: ["run", "--no-check", "--no-prompt", "-"],
      stdin: "piped",
      stdout: "piped",
      stderr: "null",
    });
    const child = command.spawn();
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(script));
    await writer.close();
    const { stdout } = await child.output();
    const { backend: _, ...known } = gpu.adapter;
    assertEquals(JSON.parse(new TextDecoder().decode(stdout)), known);
  },
);

gpuTest("this machine's adapter is found by its own name, with its backend", async (gpu) => {
  const chosen = await Gpu.open({ adapter: gpu.adapter.name.slice(0, 6).toUpperCase() });
  try {
    assertEquals(chosen.adapter, gpu.adapter);
    assert(["Vulkan", "Metal", "DX12", "OpenGL"].includes(chosen.adapter.backend!), chosen.adapter.backend);
  } finally {
    chosen.close();
  }
});
