// A headless Chromium with one page, which is a client of the robot; this program serves the page and relays.
//
//     node viam_browser.mjs FOLDER_WITH_NODE_MODULES UNIX_SOCKET CHROMIUM PROFILE_FOLDER HOST
//
// HOST is the name under which the page is opened: it makes the page's origin. The process whose number is told is
// Chromium's: when it is killed the page is gone.

import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createConnection } from "node:net";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const [folder, socket, chromium, profile, host] = process.argv.slice(2);
const here = dirname(fileURLToPath(import.meta.url));
const script = (path) => ["text/javascript", readFileSync(path)];
const FILES = {
  "/": ["text/html", '<!doctype html><script src="sdk.js"></script><script type="module" src="viam_page.mjs"></script>'],
  "/sdk.js": script(join(folder, "node_modules/@viamrobotics/sdk/dist/main.umd.js")),
  "/robot.mjs": script(join(here, "robot.mjs")),
  "/viam_page.mjs": script(join(here, "viam_page.mjs")),
};

const connection = createConnection(socket);
const orders = [];
let waiting = undefined;

/** Hands an order to the page, if there is one and the page asks. */
function hand_out() {
  if (waiting !== undefined && orders.length > 0) {
    waiting.end(orders.shift());
    waiting = undefined;
  }
}

const server = createServer((request, response) => {
  if (request.url === "/order") {
    waiting = response;
    hand_out();
  } else if (request.url === "/reply") {
    request.on("data", (part) => connection.write(part));
    request.on("end", () => connection.write("\n") && response.end());
  } else if (FILES[request.url] !== undefined) {
    const [type, content] = FILES[request.url];
    response.setHeader("content-type", type).end(content);
  } else {
    response.writeHead(404).end();
  }
});

server.listen(0, "127.0.0.1", () => {
  const browser = spawn(
    chromium,
    [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-dev-shm-usage",
      "--no-first-run",
      // Timers of a page that nobody looks at are slowed down otherwise.
      "--disable-background-timer-throttling",
      "--disable-renderer-backgrounding",
      // Every name is this computer: a page may come from anywhere.
      "--host-resolver-rules=MAP * 127.0.0.1",
      `--user-data-dir=${profile}`,
      `http://${host}:${server.address().port}/`,
    ],
    { stdio: ["ignore", "ignore", "inherit"] },
  );
  browser.on("exit", () => process.exit(0));
  connection.on("close", () => browser.kill("SIGKILL"));
  connection.write(`${JSON.stringify({ pid: browser.pid })}\n`);
  createInterface({ input: connection }).on("line", (line) => orders.push(line) && hand_out());
});
