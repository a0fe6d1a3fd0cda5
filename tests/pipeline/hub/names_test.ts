import { assertEquals, assertThrows } from "@std/assert";
import { UserError } from "../../../pipeline/errors.ts";
import { hubEnvironment } from "../../../pipeline/hub/environment.ts";
import { hubHosts } from "../../../pipeline/hub/hosts.ts";
import { hubData, hubModel } from "../../../pipeline/hub/names.ts";
import { SPARSIFY } from "../../../pipeline/settings.ts";
import { parseCommand } from "../../../pipeline/settings/parse.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";

Deno.test("a model's name has an owner or none, and a revision or main", () => {
  const found = (text: string) => {
    const model = hubModel(text);
    return model && [model.name, model.revision];
  };
  assertEquals(found("allenai/OLMo-7B-hf"), ["allenai/OLMo-7B-hf", "main"]);
  assertEquals(found("gpt2"), ["gpt2", "main"]);
  assertEquals(found("HuggingFaceTB/SmolLM2-135M@v1.0"), ["HuggingFaceTB/SmolLM2-135M", "v1.0"]);
  assertEquals(found("a/b@refs/pr/3"), ["a/b", "refs/pr/3"]);
  for (
    const none of [
      "a/b/c",
      "./a",
      "../a",
      "/a/b",
      "a/",
      "a\\b",
      "a--b",
      "a..b/c",
      "a/b@",
      "a/b@../x",
      "a b",
      "",
    ]
  ) {
    assertEquals(found(none), undefined, none);
  }
});

Deno.test("data's name may have a part, a split and a commit", () => {
  const found = (text: string) => {
    const { name, revision, config, split } = hubData(text);
    return [name, revision, config, split];
  };
  assertEquals(found("hf:allenai/c4:en"), ["allenai/c4", undefined, "en", undefined]);
  assertEquals(found("hf:allenai/c4:en.noblocklist/validation"), [
    "allenai/c4",
    undefined,
    "en.noblocklist",
    "validation",
  ]);
  assertEquals(found("hf:a/b/test"), ["a/b", undefined, undefined, "test"]);
  assertEquals(found("hf:a/b@0123:20231101.en/train"), ["a/b", "0123", "20231101.en", "train"]);
  for (const none of ["hf:", "hf:/a", "hf:a/b:", "hf:a/b:../c", "hf:a/b/c/d", "hf:a/b@..", "a/b"]) {
    assertThrows(() => hubData(none), UserError, "must be of the form", none);
  }
});

Deno.test("a folder of a model's name goes first; what names the hub is not taken from the user's folder", async () => {
  await using folder = await temporaryFolder();
  await Deno.mkdir(`${folder.path}/owner/here`, { recursive: true });
  const given = (args: string[]) => parseCommand(SPARSIFY, args, folder.path).given;
  assertEquals(given(["--model", "owner/here"]), { model: `${folder.path}/owner/here` });
  assertEquals(given(["--model", "owner/away"]), { model: "owner/away" });
  assertEquals(given(["--model", "a/b/c"]), { model: `${folder.path}/a/b/c` });
  assertEquals(given(["--data", "hf:owner/data", "--data", "texts/a.txt"]), {
    data: ["hf:owner/data", `${folder.path}/texts/a.txt`],
  });
});

Deno.test("the environment's variables are those of Hugging Face's tools, in their order", async () => {
  await using folder = await temporaryFolder();
  await Deno.writeTextFile(`${folder.path}/token`, "from-file\n");
  const of = (variables: Record<string, string>) =>
    hubEnvironment((name) => ({ HOME: "/home/u", ...variables })[name]);
  assertEquals(of({}), {
    endpoint: "https://huggingface.co",
    cache: "/home/u/.cache/huggingface/hub",
    offline: false,
  });
  assertEquals(of({ XDG_CACHE_HOME: "/x" }).cache, "/x/huggingface/hub");
  assertEquals(of({ XDG_CACHE_HOME: "/x", HF_HOME: "~/hf" }).cache, "/home/u/hf/hub");
  assertEquals(of({ HF_HOME: "/h", HUGGINGFACE_HUB_CACHE: "/old" }).cache, "/old");
  assertEquals(
    of({ HF_HOME: "/h", HF_HUB_CACHE: "${HOME}/new", HUGGINGFACE_HUB_CACHE: "/old" }).cache,
    "/home/u/new",
  );
  assertEquals(of({ HF_HOME: folder.path }).token, "from-file");
  assertEquals(of({ HF_TOKEN_PATH: `${folder.path}/token` }).token, "from-file");
  assertEquals(of({ HF_HOME: folder.path, HF_TOKEN: " hf_x\n" }).token, "hf_x");
  assertEquals(of({ HF_HOME: folder.path, HF_HUB_DISABLE_IMPLICIT_TOKEN: "1" }).token, undefined);
  for (const on of ["1", "true", "YES", "On"]) assertEquals(of({ HF_HUB_OFFLINE: on }).offline, true);
  assertEquals(of({ HF_HUB_OFFLINE: "0" }).offline, false);
  assertEquals(of({ TRANSFORMERS_OFFLINE: "1" }).offline, true);
  assertEquals(of({ HF_ENDPOINT: "https://hub.example/mirror/" }).endpoint, "https://hub.example/mirror");
  for (const bad of ["hub.example", "ftp://x", "https://u:p@x", "https://x?y"]) {
    assertThrows(() => of({ HF_ENDPOINT: bad }), UserError, "Cannot use HF_ENDPOINT");
  }
  assertThrows(() => of({ HF_TOKEN: "a\nb" }), UserError, "Cannot use the token");
});

Deno.test("the hosts that may be reached are the hub's, and HF_ENDPOINT's", () => {
  const own = ["huggingface.co", "*.huggingface.co", "*.hf.co"];
  assertEquals(hubHosts(undefined), own);
  assertEquals(hubHosts("https://huggingface.co"), own);
  assertEquals(hubHosts("https://hub.example:8443/mirror"), [...own, "hub.example"]);
  assertEquals(hubHosts("no address"), own);
});
