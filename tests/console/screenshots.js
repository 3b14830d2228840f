// Makes the screenshots of the README. `make screenshots` runs it.

import { Console, LOOKS } from "./console.js";

const ORG = "/console/orgs/966";
const WIDE = LOOKS.find((look) => look.name === "wide, light");
const PHONE = LOOKS.find((look) => look.name === "phone, dark");

const console_ = await Console.start();
try {
  await console_.api("/v2/otp/generate", { entityType: "MOBILE", entityValue: "8799361139", action: "POINTS" });
  for (let number = 0; number < 5; number++) await console_.api("/v2/cardNumber");
  for (const [name, path, look] of [
    ["registration", `${ORG}/registration`, WIDE],
    ["numbers", `${ORG}/numbers`, PHONE],
    ["tills", `${ORG}/tills`, PHONE],
    ["customer", `${ORG}/customers/313302314`, WIDE],
  ]) {
    const page = await console_.open(path, look);
    if (name === "registration") {
      await page.getByLabel("CONF_OTP_LENGTH").fill("6");
      await page.locator("#preview").getByText("CONF_OTP_LENGTH").waitFor();
    }
    await page.screenshot({ path: new URL(`../../docs/console-${name}.png`, import.meta.url).pathname });
    await page.context().close();
  }
} finally {
  await console_.stop();
}
