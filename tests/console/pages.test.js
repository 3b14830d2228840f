// Drives the console as the people do who run shops: those who configure, have cards printed, manage
// tills, and answer customers. `make test-console` runs it.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";

import { Console, LOOKS, flaws } from "./console.js";

const ORG = "/console/orgs/966";
const PAGES = [
  "/console/",
  "/console/activity",
  `${ORG}/registration`,
  `${ORG}/numbers`,
  `${ORG}/tills`,
  `${ORG}/activity`,
  `${ORG}/customers`,
  `${ORG}/customers/313302314`,
];
/** The roles do the same with script and without. */
const WITH_AND_WITHOUT_SCRIPT = [LOOKS[0], LOOKS.find((look) => !look.script)];

let console_;

before(async () => {
  console_ = await Console.start();
  // Something to show on every page.
  const issued = await console_.api("/v2/otp/generate", {
    entityType: "MOBILE",
    entityValue: "8799361139",
    action: "POINTS",
  });
  assert.equal(issued.status, 200);
  assert.equal((await console_.api("/v2/cardNumber")).status, 200);
});

after(() => console_?.stop());

/** Registers a customer, and returns the user id. */
async function register(mobile) {
  const identifiers = [{ type: "mobile", value: mobile }];
  const profiles = [{ firstName: "Ann", source: "INSTORE", identifiers }];
  const registered = await console_.api("/v2/customers", { profiles });
  assert.equal(registered.status, 200, JSON.stringify(registered.json));
  return registered.json.createdId;
}

async function issue(mobile) {
  const issued = await console_.api("/v2/otp/generate", { entityType: "MOBILE", entityValue: mobile, action: "POINTS" });
  assert.equal(issued.status, 200, JSON.stringify(issued.json));
}

const validate = (mobile, code) =>
  console_.api("/v2/otp/validate", { entityType: "MOBILE", entityValue: mobile, action: "POINTS", code });

/** Runs `use` with a page, which must have no problems and no flaws at the end. */
async function onPage(path, look, use) {
  const page = await console_.open(path, look);
  try {
    await use(page);
    assert.deepEqual([...(await flaws(page)), ...console_.takeProblems()], []);
  } finally {
    await page.context().close();
  }
}

for (const look of LOOKS) {
  test(`every page is accessible and fits the screen: ${look.name}`, async () => {
    for (const path of PAGES) {
      await onPage(path, look, async (page) => {
        await page.getByRole("heading", { level: 1 }).waitFor();
      });
    }
  });
}

for (const look of WITH_AND_WITHOUT_SCRIPT) {
  test(`configuration: a setting is reviewed before it is applied: ${look.name}`, async () => {
    const length = look.script ? "6" : "8";
    await onPage(`${ORG}/registration`, look, async (page) => {
      await page.getByLabel("CONF_OTP_LENGTH").fill("3");
      await page.getByRole("button", { name: "Review the changes" }).click();
      const field = page.getByLabel("CONF_OTP_LENGTH");
      assert.equal(await field.getAttribute("aria-invalid"), "true", "the error is at the field");
      assert.match(await page.locator("#CONF_OTP_LENGTH-error").innerText(), /not within 4 to 50/);
      assert.deepEqual(await flaws(page), []);
      if (look.script) {
        assert.equal(await page.evaluate(() => document.activeElement.className), "problems");
      }

      await field.fill(length);
      if (look.script) {
        // The preview follows what is typed.
        await page.locator("#preview").getByText("CONF_OTP_LENGTH").waitFor();
      }
      await page.getByRole("button", { name: "Review the changes" }).click();
      await page.getByRole("heading", { name: "Before you apply" }).waitFor();
      assert.match(await page.getByRole("main").innerText(), new RegExp(`CONF_OTP_LENGTH[^]*${length}`));
      assert.deepEqual(await flaws(page), []);
      await page.getByRole("button", { name: "Apply" }).click();
      await page.getByRole("status").first().waitFor();
      assert.equal(await page.getByLabel("CONF_OTP_LENGTH").inputValue(), length);

      const downloading = page.waitForEvent("download");
      await page.getByRole("link", { name: /Download the file/ }).click();
      const file = await readFile(await (await downloading).path(), "utf8");
      assert.match(file, new RegExp(`CONF_OTP_LENGTH = ${length}`));
    });
  });

  test(`printing: numbers are taken and downloaded, and again later: ${look.name}`, async () => {
    await onPage(`${ORG}/numbers`, look, async (page) => {
      await page.getByLabel("How many numbers").fill("none");
      await page.getByRole("button", { name: "Take numbers" }).click();
      await page.locator("#count-error").waitFor();
      assert.deepEqual(await flaws(page), []);

      const next = await page.locator("ol.numbers li").first().innerText();
      await page.getByLabel("How many numbers").fill("50");
      await page.getByRole("button", { name: "Take numbers" }).click();
      assert.deepEqual(await flaws(page), []);
      await page.getByRole("button", { name: "Take 50 numbers" }).click();
      const download = async () => {
        const downloading = page.waitForEvent("download");
        await page.getByRole("link", { name: /Download the file/ }).click();
        return readFile(await (await downloading).path(), "utf8");
      };
      const lines = (await download()).trimEnd().split("\n");
      assert.equal(lines[0], "number");
      assert.equal(lines[1], next);
      assert.equal(new Set(lines).size, 51);
      assert.deepEqual(await flaws(page), []);

      await page.getByRole("link", { name: "Numbers", exact: true }).click();
      await page.getByRole("link", { name: /^Show/ }).first().click();
      assert.equal((await download()).trimEnd(), lines.join("\n"), "the same file again");
    });
  });

  test(`tills: one is created, gets a second password, and is revoked: ${look.name}`, async () => {
    const name = look.script ? "shop.1" : "shop.2";
    await onPage(`${ORG}/tills`, look, async (page) => {
      await page.getByLabel("Name", { exact: true }).fill(name);
      await page.getByLabel("otp:fetch").check();
      await page.getByRole("button", { name: "Create the till" }).click();
      const password = await page.locator("#password").innerText();
      assert.match(await page.locator("#command").innerText(), new RegExp(`curl.*${console_.base}`, "s"));
      assert.ok(!page.url().includes(password), "no password in the address");
      assert.deepEqual(await flaws(page), []);
      const status = async (secret) => {
        const headers = { Authorization: `Basic ${Buffer.from(`${name}:${secret}`).toString("base64")}` };
        const url = `${console_.base}/v2/otp?source=INSTORE&mobile=8799361139&scope=COUPON`;
        return (await fetch(url, { headers })).status;
      };
      assert.notEqual(await status(password), 401, "the password works");

      await page.getByRole("link", { name: "To the tills" }).click();
      assert.ok(!(await page.content()).includes(password), "it is shown once");
      await page.getByRole("button", { name: `Rotate ${name}` }).click();
      const second = await page.locator("#password").innerText();
      assert.notEqual(second, password);
      assert.notEqual(await status(second), 401);
      await page.getByRole("link", { name: "To the tills" }).click();
      await page.getByRole("button", { name: `Revoke ${name}`, exact: true }).click();
      assert.deepEqual(await flaws(page), []);
      await page.getByRole("button", { name: "Revoke", exact: true }).click();
      await page.getByRole("status").getByText(`Till ${name}: 2 passwords revoked`).waitFor();
    });
  });

  test(`support: a customer is found, unlocked, and an open code is revoked: ${look.name}`, async () => {
    const mobile = look.script ? "9876543210" : "9876543211";
    const customer = await register(mobile);
    await issue(mobile);
    for (let guess = 0; guess < 5; guess++) await validate(mobile, "WRONG99");
    assert.equal((await validate(mobile, "WRONG99")).status, 429, "locked");
    await onPage(`${ORG}/customers`, look, async (page) => {
      await page.getByLabel("Kind of identifier").selectOption("mobile");
      await page.getByLabel("Identifier", { exact: true }).fill("12");
      await page.getByRole("button", { name: "Find" }).click();
      await page.locator("#value-error").waitFor();
      assert.deepEqual(await flaws(page), []);

      await page.getByLabel("Identifier", { exact: true }).fill(`+91 ${mobile.slice(0, 5)} ${mobile.slice(5)}`);
      await page.getByRole("button", { name: "Find" }).click();
      await page.getByRole("heading", { level: 1, name: new RegExp(customer) }).waitFor();
      assert.ok(!page.url().includes(mobile), "no identifier in the address");
      assert.ok(!(await page.content()).includes(mobile), "masked until asked for");
      assert.deepEqual(await flaws(page), []);
      await page.getByRole("button", { name: "Show identifiers and names" }).click();
      assert.match(await page.getByRole("main").innerText(), new RegExp(mobile));
      assert.deepEqual(await flaws(page), []);

      await page.getByRole("button", { name: /^Unlock/ }).click();
      await page.getByRole("status").first().waitFor();
      assert.equal((await validate(mobile, "WRONG99")).status, 200, "a guess is judged again");
      assert.deepEqual(await flaws(page), []);
      await page.getByRole("button", { name: /^Revoke/ }).click();
      await page.getByRole("heading", { level: 1, name: "Revoke every open OTP?" }).waitFor();
      assert.deepEqual(await flaws(page), []);
      await page.getByRole("button", { name: /^Revoke/ }).click();
      await page.getByRole("status").first().waitFor();
      const fetched = await console_.api(`/v2/otp?source=INSTORE&mobile=${mobile}&scope=POINTS`);
      assert.equal(fetched.status, 404, "no code is valid any more");
    });
  });

  test(`privacy: a customer is erased once the id is typed: ${look.name}`, async () => {
    const mobile = look.script ? "9876543220" : "9876543221";
    const customer = await register(mobile);
    await onPage(`${ORG}/customers/${customer}`, look, async (page) => {
      await page.getByLabel(/type the customer's id/).fill("1");
      await page.getByRole("button", { name: "Erase for ever" }).click();
      await page.locator("#typed-error").waitFor();
      assert.deepEqual(await flaws(page), []);
      const lookup = `/v2/customers/lookup?source=INSTORE&identifierName=mobile&identifierValue=${mobile}`;
      assert.equal((await console_.api(lookup)).status, 200, "nothing is erased yet");
      await page.getByLabel(/type the customer's id/).fill(String(customer));
      await page.getByRole("button", { name: "Erase for ever" }).click();
      await page.getByText(/is unknown to every request/).first().waitFor();
      assert.equal((await console_.api(lookup)).status, 404, "unknown from the first write on");
      assert.ok(!(await page.content()).includes(mobile));
    });
  });
}

test("activity: a request is shown with its till, status and user agent", async () => {
  await onPage("/console/activity", LOOKS[0], async (page) => {
    const row = page.getByRole("row", { name: /GET \/v2\/cardNumber/ }).first();
    assert.match(await row.innerText(), /200\s+till\/1\.0\s+store\.server/);
    assert.ok(!(await page.content()).includes("8799361139"), "no identifier of a customer");
  });
});

test("the keyboard alone leads from the first page to a new till", async () => {
  await onPage("/console/", LOOKS[0], async (page) => {
    const focused = () =>
      page.evaluate(() => {
        const element = document.activeElement;
        const style = getComputedStyle(element);
        const label = element.labels?.[0]?.innerText ?? element.innerText;
        return { text: label.trim(), outline: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0 };
      });
    /** Presses Tab until what has the focus says `text`. It must be visible everywhere on the way. */
    const tabTo = async (text) => {
      for (let presses = 0; presses < 60; presses++) {
        await page.keyboard.press("Tab");
        const { text: found, outline } = await focused();
        assert.ok(outline, `the focus on "${found}" is not visible`);
        if (found === text || found.startsWith(`${text}\n`) || found.startsWith(`${text} of `)) return;
      }
      assert.fail(`${text} is not reached`);
    };
    await tabTo("Skip to the content");
    await page.keyboard.press("Enter");
    await tabTo("Tills");
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { level: 1, name: "Tills" }).waitFor();
    await tabTo("Name");
    await page.keyboard.type("shop.keyboard");
    await tabTo("card_number:generate");
    await page.keyboard.press("Space");
    await tabTo("Create the till");
    await page.keyboard.press("Enter");
    await page.locator("#password").waitFor();
  });
});

test("another browser gets nothing, and what it gets has a strict policy", async () => {
  const context = await console_.browser.newContext();
  const page = await context.newPage();
  for (const path of PAGES) {
    const response = await page.goto(console_.base + path);
    assert.equal(response.status(), 401, path);
    assert.match(response.headers()["content-security-policy"], /default-src 'none'/);
    assert.ok(!(await page.content()).includes("Demo Stores"), path);
  }
  await context.close();
});
