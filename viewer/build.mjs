// Bundle the viewer into the package's static files, with the licences of all that is in it.
import { readdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const home = dirname(fileURLToPath(import.meta.url));
const out = join(home, "..", "src", "focalis", "device", "web", "static", "viewer");

const result = await build({
  absWorkingDir: home,
  entryPoints: ["main.js"],
  outfile: join(out, "viewer.js"),
  bundle: true,
  format: "esm",
  minify: true,
  target: "es2022",
  platform: "browser",
  external: ["node:*", "fs", "path", "module", "url"],
  legalComments: "none",
  metafile: true,
});

const packages = new Set();
for (const input of Object.keys(result.metafile.inputs)) {
  const found = input.match(/node_modules\/((?:@[^/]+\/)?[^/]+)\//);
  if (found) packages.add(found[1]);
}
const texts = [];
for (const name of [...packages].sort()) {
  const folder = join(home, "node_modules", name);
  const { version, license, repository } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
  const file = (await readdir(folder)).find((each) => /^licen[cs]e/i.test(each));
  const text = file ? await readFile(join(folder, file), "utf8") : `See ${repository?.url ?? repository ?? "its repository"}.\n`;
  texts.push(`${name} ${version} (${license})\n\n${text}`);
}
await writeFile(join(out, "LICENSES.txt"), texts.join(`\n${"-".repeat(80)}\n\n`));
console.log(`viewer.js: ${packages.size} packages`);
