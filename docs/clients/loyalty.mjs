// A client of the loyalty API, for Node.js 18 or later and for browsers' `fetch`, without packages.
//
//   LOYALTY_URL=https://… LOYALTY_TILL=store.server LOYALTY_PASSWORD=… node loyalty.mjs 8799361139

/** The service refused a request. `codes` says why. */
export class Refused extends Error {
  constructor(status, errors, retryAfter) {
    super(errors.map(({ code, message }) => `${code} ${message}`).join("; ") || `HTTP ${status}`);
    Object.assign(this, { status, retryAfter });
    this.codes = errors.map(({ code }) => code);
  }
}

const ATTEMPTS = 3;
const wait = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

export class Loyalty {
  #token = null;
  #renewAt = 0;

  constructor(url, till, password) {
    Object.assign(this, { url, till, password });
  }

  get(path, parameters) {
    return this.#call("GET", `${path}?${new URLSearchParams(parameters)}`);
  }

  post(path, body = {}) {
    return this.#call("POST", path, body);
  }

  async #call(method, path, body) {
    // The same key in every attempt, so that nothing happens twice.
    const headers = method === "POST" ? { "Idempotency-Key": crypto.randomUUID() } : {};
    let renewed = false;
    for (let attempt = 1; ; ) {
      try {
        headers["X-CAP-API-OAUTH-TOKEN"] = await this.#validToken();
        return await this.#send(method, path, body, headers);
      } catch (error) {
        if (error.status === 401 && this.#token !== null && !renewed) {
          renewed = true;
          this.#token = null;
          continue;
        }
        // Another error than a refusal: the answer was lost. The request may have been carried out.
        const again = !(error instanceof Refused) || error.status === 503;
        if (!again || attempt === ATTEMPTS) throw error;
        await wait(error.retryAfter ?? 1);
        attempt++;
      }
    }
  }

  async #validToken() {
    if (this.#token === null || Date.now() >= this.#renewAt) {
      this.#token = null;
      const credentials = { key: this.till, secret: this.password };
      const { accessToken, ttlSeconds } = (await this.#send("POST", "/v3/oauth/token/generate", credentials)).data;
      this.#token = accessToken;
      this.#renewAt = Date.now() + (ttlSeconds - 10) * 1000;
    }
    return this.#token;
  }

  async #send(method, path, body, headers = {}) {
    const response = await fetch(this.url + path, {
      method,
      headers: { ...headers, "Content-Type": "application/json" },
      body: body && JSON.stringify(body),
      signal: AbortSignal.timeout(15_000),
    });
    if (response.ok) return response.json();
    const { errors } = await response.json().catch(() => ({}));
    throw new Refused(response.status, errors ?? [], Number(response.headers.get("Retry-After") ?? 1));
  }
}

async function main(mobile) {
  const { LOYALTY_URL, LOYALTY_TILL, LOYALTY_PASSWORD } = process.env;
  const loyalty = new Loyalty(LOYALTY_URL, LOYALTY_TILL, LOYALTY_PASSWORD);
  const customer = { entityType: "MOBILE", entityValue: mobile, action: "POINTS" };
  const channels = [{ type: "SMS", value: mobile }];
  console.log("issued", (await loyalty.post("/v2/otp/generate", { ...customer, channels })).createdId);
  // Only what delivers codes itself needs to fetch them.
  const { code } = await loyalty.get("/v2/otp", { source: "INSTORE", mobile, scope: "POINTS", threshold: 60 });
  console.log("code", code);
  console.log("valid", (await loyalty.post("/v2/otp/validate", { ...customer, code })).entity);
  console.log("number", (await loyalty.post("/v2/cardNumber")).entity);
  try {
    await loyalty.get("/v2/otp", { source: "INSTORE", mobile, scope: "POINTS" });
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    console.log("refused", error.status, error.message);
  }
}

if (import.meta.url === `file://${process.argv[1]}`) await main(process.argv[2]);
