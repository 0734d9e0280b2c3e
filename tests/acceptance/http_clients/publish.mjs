// Posts files to the server API: node publish.mjs URL KEY FILE... Prints each answer's status and body on a line.
import { readFileSync } from "node:fs";

const [url, key, ...files] = process.argv.slice(2);
for (const file of files) {
  const answer = await fetch(url, { method: "POST", headers: { "X-API-Key": key }, body: readFileSync(file) });
  console.log(answer.status, await answer.text());
}
