/**
 * As a program it prints the permission that MPI needs where mpirun or srun has started this process as one of several, and
 * nothing elsewhere: a run by itself calls no foreign library, and may not. The tasks in deno.json ask it.
 *
 * @module
 */
import { launchOf } from "./mpi.ts";

if (import.meta.main && launchOf((name) => Deno.env.get(name))) console.log("--allow-ffi");
