// The page: the unmodified TypeScript SDK in a browser. It fetches what it is to do from where it came from.

import { Client, answer } from "./robot.mjs";

const client = new Client(globalThis.sdk);
const write = (line) => fetch("/reply", { method: "POST", body: JSON.stringify(line) });
while (true) {
  const order = await (await fetch("/order")).json();
  answer(client, order).then(write);
}
