// Posts files to the server API: node publish.mjs URL KEY FILE... Prints status and body of each response on one line.
import { readFileSync } from "node:fs";

const [url, key, ...files] = process.argv.slice(2);
for (const file of files) {
  const response = await fetch(url, { method: "POST", headers: { "X-API-Key": key }, body: readFileSync(file) });
  console.log(response.status, await response.text());
}
