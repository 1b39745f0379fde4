// Prints each token of a file with its scope, as an editor with TextMate grammars would colour it:
// node textmate.mjs FOLDER GRAMMAR FILE, where `FOLDER/node_modules` holds vscode-textmate and vscode-oniguruma.
import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";

const [folder, grammarPath, file] = process.argv.slice(2);
const require = createRequire(path.resolve(folder) + "/");
const { Registry, parseRawGrammar, INITIAL } = require("vscode-textmate");
const oniguruma = require("vscode-oniguruma");

await oniguruma.loadWASM(fs.readFileSync(require.resolve("vscode-oniguruma/release/onig.wasm")));
const registry = new Registry({
  onigLib: Promise.resolve({
    createOnigScanner: patterns => new oniguruma.OnigScanner(patterns),
    createOnigString: text => new oniguruma.OnigString(text),
  }),
  loadGrammar: async () => parseRawGrammar(fs.readFileSync(grammarPath, "utf8"), grammarPath),
});
const grammar = await registry.loadGrammar("source.hift");

let stack = INITIAL;
for (const line of fs.readFileSync(file, "utf8").split(/\r?\n/)) {
  const { tokens, ruleStack } = grammar.tokenizeLine(line, stack);
  stack = ruleStack;
  for (const { startIndex, endIndex, scopes } of tokens) {
    const text = line.slice(startIndex, endIndex).trim();
    if (text) {
      console.log(`${text}  ${scopes.slice(1).join(" ")}`);
    }
  }
}
