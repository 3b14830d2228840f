// A console on an embedded DynamoDB with the demo org, and browsers that use it.

import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

import { chromium } from "playwright-core";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** Longer than anything here takes. */
export const TIMEOUT = 20_000;

/** The looks that every page must have: sizes, colours, and whether script runs. */
export const LOOKS = [
  { name: "wide, light", width: 1280, colorScheme: "light", script: true },
  { name: "wide, dark", width: 1280, colorScheme: "dark", script: true },
  { name: "phone, light", width: 390, colorScheme: "light", script: true },
  { name: "phone, dark", width: 390, colorScheme: "dark", script: true },
  { name: "phone, without script", width: 390, colorScheme: "light", script: false },
];

export class Console {
  /** Starts the service, and a browser that has opened the console's address. */
  static async start() {
    const program = process.env.LOYALTYCTL;
    const service = spawn(program, ["serve", "--demo", "--in-memory", "--listen", "127.0.0.1:0", "--settle", "2"], {
      stdio: ["ignore", "pipe", "inherit"],
      env: { ...process.env, RUST_LOG: "error", USER: "ann" },
    });
    const printed = [];
    const url = await new Promise((found, failed) => {
      const lines = createInterface({ input: service.stdout });
      lines.on("line", (line) => {
        printed.push(line);
        const address = /^The console is at (\S+)$/.exec(line);
        if (address) printed.url = address[1];
        // The last of the requests that the demo prints.
        if (printed.url && line.includes("/v2/customers")) found(printed.url);
      });
      lines.on("close", () => failed(new Error(`the service has ended: ${printed.join("\n")}`)));
    });
    const browser = await chromium.launch({
      executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
      // Chromium's sandbox does not work for root, as whom CI runs. The browser sees only this service.
      args: process.getuid() === 0 ? ["--no-sandbox"] : [],
    });
    const console = new Console(service, browser, new URL(url).origin, printed);
    const first = await browser.newContext();
    const page = await first.newPage();
    await page.goto(url);
    console.session = await first.storageState();
    await first.close();
    return console;
  }

  constructor(service, browser, base, printed) {
    Object.assign(this, { service, browser, base, printed, problems: [] });
  }

  async stop() {
    await this.browser.close();
    this.service.kill("SIGTERM");
    await new Promise((ended) => this.service.once("exit", ended));
  }

  /** The name and password of the demo's till. */
  till() {
    return /-u (\S+)/.exec(this.printed.join("\n"))[1].replaceAll("'", "");
  }

  /** Sends a request to the API as the demo's till. */
  async api(path, body) {
    const response = await fetch(this.base + path, {
      method: body ? "POST" : "GET",
      headers: {
        Authorization: `Basic ${Buffer.from(this.till()).toString("base64")}`,
        "Content-Type": "application/json",
        "User-Agent": "till/1.0",
      },
      body: body && JSON.stringify(body),
    });
    return { status: response.status, json: await response.json() };
  }

  /** A page of the console in a look. Its errors and refused resources are problems. */
  async open(path, look = LOOKS[0]) {
    const context = await this.browser.newContext({
      storageState: this.session,
      viewport: { width: look.width, height: look.width < 500 ? 844 : 800 },
      colorScheme: look.colorScheme,
      javaScriptEnabled: look.script,
      reducedMotion: "reduce",
      acceptDownloads: true,
    });
    const page = await context.newPage();
    page.setDefaultTimeout(TIMEOUT);
    const problem = (text) => this.problems.push(`${page.url()} (${look.name}): ${text}`);
    page.on("console", (message) => {
      // What breaks the content security policy is such an error, too. A form that is shown again with
      // what is wrong in it has the status 422, which Chromium reports.
      const isForm = message.text().includes("status of 422") && message.location().url === page.url();
      if (["error", "warning"].includes(message.type()) && !isForm) problem(message.text());
    });
    page.on("pageerror", (error) => problem(error.message));
    page.on("requestfailed", (request) => {
      const failure = request.failure()?.errorText;
      // A download ends its navigation.
      if (failure !== "net::ERR_ABORTED") problem(`${request.url()} ${failure}`);
    });
    page.on("request", (request) => {
      if (!request.url().startsWith(this.base)) problem(`the page asks for ${request.url()}`);
    });
    page.look = look;
    await page.goto(this.base + path);
    return page;
  }

  /** The problems since the last call. */
  takeProblems() {
    return this.problems.splice(0);
  }
}

/** What is wrong with how a page is made: violations of axe-core's rules, and what does not fit. */
export async function flaws(page) {
  const flaws = [];
  const wider = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  if (wider > 0) flaws.push(`the page is ${wider} pixels wider than the screen`);
  const hidden = await page.evaluate(() => {
    // A script of a test runs even where those of the page do not.
    const boxes = [...document.querySelectorAll(".scroll")].filter((box) => box.scrollWidth > box.clientWidth);
    const lines = (element) =>
      Math.round(element.getBoundingClientRect().height / parseFloat(getComputedStyle(element).lineHeight));
    const broken = [...document.querySelectorAll(".time")].filter((time) => lines(time) > 1);
    return { boxes: boxes.map((box) => box.getAttribute("aria-labelledby") ?? box.ariaLabel), broken: broken.length };
  });
  if (page.look.width < 500 && hidden.boxes.length > 0) flaws.push(`columns are out of sight: ${hidden.boxes}`);
  if (page.look.width < 500 && hidden.broken > 0) flaws.push(`${hidden.broken} times are broken into lines`);
  if (page.look.script) {
    await page.evaluate(AXE);
    const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
    for (const { id, help, nodes } of violations) {
      flaws.push(`${id}: ${help}: ${nodes.map((node) => `${node.html} ${node.failureSummary}`).join("\n")}`);
    }
  }
  return flaws.map((flaw) => `${page.url()} (${page.look.name}): ${flaw}`);
}
