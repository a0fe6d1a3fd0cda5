/**
 * What the environment says of the hub, in the variables that Hugging Face's own tools read.
 *
 * @module
 */
import { join } from "node:path";
import { usageError } from "../errors.ts";
import { HUB } from "./hosts.ts";

/** Where the hub is, where its files are kept, and who asks. */
export interface HubEnvironment {
  /** Address without a slash at its end. */
  endpoint: string;
  /** Folder of the cache, the user's own that other tools share. */
  cache: string;
  /** Sent to the endpoint's host alone. */
  token?: string;
  /** Whether only the cache may be used. */
  offline: boolean;
}

/**
 * Reads HF_ENDPOINT, HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME, HF_TOKEN, HF_TOKEN_PATH, HF_HUB_DISABLE_IMPLICIT_TOKEN,
 * HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE, and the token file that `hf auth login` writes.
 *
 * @param get a variable's value
 * @throws {UserError} when HF_ENDPOINT is no address
 */
export function hubEnvironment(
  get: (name: string) => string | undefined = Deno.env.get,
): HubEnvironment {
  // Not from the system, of which no command may ask it.
  const user = get("HOME") || get("USERPROFILE") || ".";
  const pathOf = (text: string | undefined): string | undefined =>
    text ? expanded(text, user, get) : undefined;
  const isOn = (name: string): boolean => /^(1|on|yes|true)$/i.test(get(name) ?? "");
  const home = pathOf(get("HF_HOME")) ??
    join(pathOf(get("XDG_CACHE_HOME")) ?? join(user, ".cache"), "huggingface");
  const cache = pathOf(get("HF_HUB_CACHE") || get("HUGGINGFACE_HUB_CACHE")) ?? join(home, "hub");
  const tokenPath = pathOf(get("HF_TOKEN_PATH")) ?? join(home, "token");
  const token = isOn("HF_HUB_DISABLE_IMPLICIT_TOKEN")
    ? undefined
    : (get("HF_TOKEN") || get("HUGGING_FACE_HUB_TOKEN") || readToken(tokenPath))?.trim();
  if (token && !/^[\x21-\x7e]+$/.test(token)) {
    throw usageError(
      "Cannot use the token of HF_TOKEN, or of the token file, as it must be printable ASCII without a space",
    );
  }
  return {
    endpoint: endpointOf(get("HF_ENDPOINT") || HUB),
    cache,
    ...(token ? { token } : {}),
    offline: isOn("HF_HUB_OFFLINE") || isOn("TRANSFORMERS_OFFLINE"),
  };
}

function endpointOf(address: string): string {
  const url = URL.canParse(address) ? new URL(address) : undefined;
  if (!url || !/^https?:$/.test(url.protocol) || url.username || url.search || url.hash) {
    throw usageError(`Cannot use HF_ENDPOINT as it must be an address such as ${HUB}: ${address}`);
  }
  return url.href.replace(/\/+$/, "");
}

/** A path with `~` and variables of the environment put in, as Hugging Face's tools do. */
function expanded(text: string, user: string, get: (name: string) => string | undefined): string {
  return text.replace(/^~(?=$|[/\\])/, () => user)
    .replace(/\$(?:(\w+)|\{(\w+)\})/g, (whole, bare, braced) => get(bare ?? braced) ?? whole);
}

function readToken(path: string): string | undefined {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return undefined;
  }
}
