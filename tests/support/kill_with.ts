/**
 * Kills every process that has a word in its command line, as a system short of memory does. By a shell: Deno reads
 * `/proc` with every permission alone, and the word comes by the environment, so that the shell does not find itself.
 */
export async function killWith(word: string): Promise<void> {
  const script =
    'for p in /proc/[0-9]*; do tr "\\0" " " <$p/cmdline | grep -qF -e "$WORD" && kill -9 "${p#/proc/}"; done';
  await new Deno.Command("sh", { args: ["-c", script], env: { WORD: word }, stdout: "null", stderr: "null" })
    .output();
}
