/**
 * The kernels of attention that there are, and which of them a device can have.
 *
 * @module
 */
import type { Device } from "../core/device.ts";

/**
 * How a kernel of attention computes.
 *
 * - `registers`: an invocation goes over the keys for a query that it holds in registers, with no barrier; for CPU
 *   drivers, which pay dearly for barriers, and for any head size.
 * - `tiled`: a workgroup works on 64 queries by 64 keys at a time in workgroup memory; for GPUs. Each invocation has
 *   4 x 4 edges of a tile, or 4 x 8, which reads workgroup memory less often and takes more registers, up to 255. Operands
 *   come by slabs of 16 or 32 elements or rows: the larger, the fewer barriers, and the fewer workgroups at a time.
 *
 * The tiled variants take all sums in the same order, so that the choice between them, which may differ from one start of a
 * run to the next, changes no bit.
 */
export type AttentionVariant = "registers" | `tiled 4 x ${4 | 8} by ${16 | 32}`;

/** The variants that work in tiles. */
export type TiledVariant = Exclude<AttentionVariant, "registers">;

/** What WGSL needs to know of a tiled variant (tile.wgsl), as constants. */
export interface Tiling {
  /** By name. */
  constants: Record<
    | "LANES_X"
    | "COLUMNS"
    | "GROUPS"
    | "VECTORS"
    | "DEPTH"
    | "ROWS"
    | "LOADS"
    | "ROW_LOADS"
    | "ROW_LANES"
    | "SHARES"
    | "QUADS",
    number
  >;
  /** Bytes of workgroup memory that a kernel takes at most. */
  bytes: number;
}

/** Rows and columns of a tile. */
export const SIDE = 64;
/** Elements of the results' rows up to which 4 x 8 edges leave registers for them; one result may be a head of 128. */
const MOST_OF_WIDE = 128;
/** What PCI and browsers call NVIDIA. */
const NVIDIA = /^(4318|nvidia)$/i;

const NARROW: readonly TiledVariant[] = ["tiled 4 x 4 by 32", "tiled 4 x 4 by 16"];
/** Slabs of 16 were the fastest of 4 x 8 edges for each of GPT-2's three kernels on an H100. */
const WIDE: readonly TiledVariant[] = ["tiled 4 x 8 by 16", "tiled 4 x 8 by 32"];

/** What of a device the choice depends on. */
type Choosing = Pick<Device, "adapter" | "device">;

/**
 * The variants of a kernel for heads of this size on this device, the one to take where nothing was measured first.
 *
 * @param results what it sums up for each row: one row of a head's size, or the gradients of keys and of values
 */
export function possibleVariants(gpu: Choosing, headSize: number, results: 1 | 2): AttentionVariant[] {
  if (gpu.adapter.software || headSize % 4 !== 0) return ["registers"];
  const most = gpu.device.limits.maxComputeWorkgroupStorageSize;
  const fits = (variant: TiledVariant): boolean => tilingOf(variant, headSize, 4).bytes <= most;
  // Each that is measured takes a GPU's driver part of a second to compile.
  const narrow = NARROW.filter(fits).slice(0, 1);
  const wide = headSize <= MOST_OF_WIDE ? WIDE.filter(fits) : [];
  const wideFirst = NVIDIA.test(gpu.adapter.vendor) && results * headSize <= MOST_OF_WIDE;
  const fitting = wideFirst ? [...wide, ...narrow] : [...narrow, ...wide];
  return fitting.length > 0 ? fitting : ["registers"];
}

/** The variant of a kernel for heads of this size on this device, where nothing has been measured. */
export function chooseAttentionVariant(gpu: Choosing, headSize: number, results: 1 | 2): AttentionVariant {
  return possibleVariants(gpu, headSize, results)[0];
}

/**
 * How a tiled variant shares a tile between its invocations, for heads of this size.
 *
 * @param quads how often four terms are written out in a loop
 */
export function tilingOf(variant: TiledVariant, headSize: number, quads: 1 | 4): Tiling {
  const [, , , across, , by] = variant.split(" ");
  const [lanesX, rows] = [SIDE / Number(across), Number(by)];
  const invocations = SIDE / 4 * lanesX;
  const groups = Math.ceil(headSize / (4 * lanesX));
  const columns = SIDE / (4 * lanesX);
  const vectors = Math.max(columns, groups);
  const depth = Math.min(rows, 16 * Math.ceil(headSize / 16));
  const fourOfA = 4 * (SIDE / 4 + 1) + 1;
  const slabs = SIDE / 4 * fourOfA + rows * (lanesX * vectors + 1);
  return {
    constants: {
      LANES_X: lanesX,
      COLUMNS: columns,
      GROUPS: groups,
      VECTORS: vectors,
      DEPTH: depth,
      ROWS: rows,
      LOADS: SIDE * depth / (4 * invocations),
      ROW_LOADS: Math.ceil(rows * headSize / (4 * invocations)),
      ROW_LANES: invocations / SIDE,
      SHARES: 4 * SIDE / invocations,
      QUADS: quads,
    },
    bytes: 16 * slabs + 4 * (4 * SIDE + SIDE + 2),
  };
}
