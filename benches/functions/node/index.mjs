// The four hot routes on the AWS SDK for JavaScript v3, for comparison. They make the same DynamoDB
// calls, without the service's rules. The loop at the end talks to the Runtime API. AWS's client
// for it is in C++.
import {
  DynamoDBClient,
  GetItemCommand,
  QueryCommand,
  TransactWriteItemsCommand,
  UpdateItemCommand,
} from "@aws-sdk/client-dynamodb";
import { createHash, randomInt } from "node:crypto";
import http from "node:http";

const client = new DynamoDBClient({});
const TableName = process.env.TABLE_NAME;
const ORG = "ORG#966";
const DAY = 86_400_000;
const cache = new Map();

async function get(PK, SK) {
  const read = { TableName, Key: { PK: { S: PK }, SK: { S: SK } }, ConsistentRead: true };
  return (await client.send(new GetItemCommand(read))).Item;
}

async function cached(PK, SK) {
  if (!cache.has(PK)) cache.set(PK, await get(PK, SK));
  return cache.get(PK);
}

async function authenticate(authorization) {
  const [name, password] = Buffer.from(authorization.slice(6), "base64").toString().split(":");
  const till = await cached(`TILL#${name}`, "TILL");
  const digest = createHash("sha256").update(password).digest("hex");
  const stored = till.credentials.L.map((c) => Buffer.from(c.M.password_digest.B).toString("hex"));
  if (!stored.includes(digest)) throw new Error("401");
  return cached(`ORG#${till.org.N}`, "ORG");
}

// A mobile with the country code, in digits alone.
function digits(mobile) {
  const digits = mobile.replace(/\D/g, "");
  return digits.length === 10 ? `91${digits}` : digits;
}

async function findCustomer(source, account, mobile) {
  const found = await get(`${ORG}#ID#${source}#${account}#mobile#${digits(mobile)}`, "ID");
  return found.user_id.N;
}

async function otps(user, scope, now) {
  const from = `OTP#${scope}#${String((now - DAY) * 1000).padStart(16, "0")}`;
  const found = await client.send(
    new QueryCommand({
      TableName,
      KeyConditionExpression: "#pk = :pk AND #sk BETWEEN :from AND :to",
      ExpressionAttributeNames: { "#pk": "PK", "#sk": "SK" },
      ExpressionAttributeValues: {
        ":pk": { S: `${ORG}#USER#${user}` },
        ":from": { S: from },
        ":to": { S: `OTP#${scope}#GUESSES` },
      },
      ConsistentRead: true,
      ScanIndexForward: false,
    }),
  );
  return found.Items.filter((item) => item.code);
}

const routes = {
  async fetch({ source, accountId, identifierValue, scope }, now) {
    const user = await findCustomer(source, accountId, identifierValue);
    const [newest] = await otps(user, scope, now);
    return { orgId: 966, userId: Number(user), code: newest.code.S, validUpto: newest.valid_until.N };
  },

  async cardNumber() {
    const { Attributes } = await client.send(
      new UpdateItemCommand({
        TableName,
        Key: { PK: { S: `${ORG}#COUNTER#CARD_NUMBER` }, SK: { S: "COUNTER" } },
        UpdateExpression: "ADD #next :one",
        ConditionExpression: "#next < :end",
        ExpressionAttributeNames: { "#next": "next" },
        ExpressionAttributeValues: { ":one": { N: "1" }, ":end": { N: "9999999999" } },
        ReturnValues: "UPDATED_NEW",
      }),
    );
    return { entity: String(BigInt(Attributes.next.N) - 1n).padStart(10, "0") };
  },

  async generate({ entityValue, action }, now) {
    const user = await findCustomer("INSTORE", "", entityValue);
    const id = now * 1000 + randomInt(1000);
    const code = Array.from({ length: 7 }, () => "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"[randomInt(32)]).join("");
    const until = now + DAY;
    const PK = { S: `${ORG}#USER#${user}` };
    await client.send(
      new TransactWriteItemsCommand({
        TransactItems: [
          {
            Put: {
              TableName,
              Item: {
                PK,
                SK: { S: `OTP#${action}#${String(id).padStart(16, "0")}` },
                created_id: { N: String(id) },
                code: { S: code },
                valid_until: { N: String(until) },
                expires_at: { N: String(Math.ceil(until / 1000)) },
              },
              ConditionExpression: "attribute_not_exists(#pk)",
              ExpressionAttributeNames: { "#pk": "PK" },
            },
          },
          {
            Update: {
              TableName,
              Key: { PK, SK: { S: `QUOTA#${new Date(now).toISOString().slice(0, 10)}` } },
              UpdateExpression: "ADD #issued :one SET #expires = :expires",
              ConditionExpression: "attribute_not_exists(#issued) OR #issued < :limit",
              ExpressionAttributeNames: { "#issued": "issued", "#expires": "expires_at" },
              ExpressionAttributeValues: {
                ":one": { N: "1" },
                ":limit": { N: "1000" },
                ":expires": { N: String(Math.ceil((now + 2 * DAY) / 1000)) },
              },
            },
          },
        ],
      }),
    );
    return { createdId: id, code };
  },

  async validate({ entityValue, action, code }, now) {
    const user = await findCustomer("INSTORE", "", entityValue);
    const right = (await otps(user, action, now)).find((otp) => otp.code.S === code && !otp.consumed_at);
    if (!right) return { entity: false };
    const PK = { S: `${ORG}#USER#${user}` };
    await client.send(
      new TransactWriteItemsCommand({
        TransactItems: [
          {
            Update: {
              TableName,
              Key: { PK, SK: right.SK },
              UpdateExpression: "SET #consumed = :now",
              ConditionExpression: "attribute_exists(#pk) AND attribute_not_exists(#consumed)",
              ExpressionAttributeNames: { "#pk": "PK", "#consumed": "consumed_at" },
              ExpressionAttributeValues: { ":now": { N: String(now) } },
            },
          },
          {
            ConditionCheck: {
              TableName,
              Key: { PK, SK: { S: `OTP#${action}#GUESSES` } },
              ConditionExpression: "attribute_not_exists(#version)",
              ExpressionAttributeNames: { "#version": "version" },
            },
          },
        ],
      }),
    );
    return { entity: true };
  },
};

async function handle(event) {
  await authenticate(event.headers.authorization);
  const body = await routes.fetch(event.queryStringParameters, Date.now());
  return { statusCode: 200, headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
}

function call(method, path, body) {
  return new Promise((resolve, reject) => {
    const [host, port] = process.env.AWS_LAMBDA_RUNTIME_API.split(":");
    const request = http.request({ host, port, method, path: `/2018-06-01/runtime/invocation/${path}` }, (answer) => {
      let text = "";
      answer.on("data", (chunk) => (text += chunk));
      answer.on("end", () => resolve({ headers: answer.headers, text }));
    });
    request.on("error", reject);
    request.end(body);
  });
}

async function serve() {
  for (;;) {
    const { headers, text } = await call("GET", "next");
    const id = headers["lambda-runtime-aws-request-id"];
    await call("POST", `${id}/response`, JSON.stringify(await handle(JSON.parse(text))));
  }
}

// Nanoseconds of each call on a warm process. Every round has its own day, as in the other benches.
async function measure(calls) {
  const entityValue = "8799361139";
  const customer = { source: "INSTORE", accountId: "", identifierValue: entityValue, scope: "POINTS" };
  const taken = { fetch: [], cardNumber: [], generate: [], validate: [] };
  const timed = async (route, parameters, now) => {
    const started = process.hrtime.bigint();
    const answer = await routes[route](parameters, now);
    taken[route].push(Number(process.hrtime.bigint() - started));
    return answer;
  };
  for (let round = 0; round < calls; round++) {
    const now = Date.now() + Number(process.env.FIRST_DAY) * DAY + round * 2 * DAY;
    const { code } = await timed("generate", { entityValue, action: "POINTS" }, now);
    await timed("fetch", customer, now);
    await timed("validate", { entityValue, action: "POINTS", code }, now);
    await timed("cardNumber", {}, now);
  }
  console.log(JSON.stringify(taken));
}

const work = process.env.CALLS ? measure(Number(process.env.CALLS)) : serve();
work.catch((error) => {
  console.error(error);
  process.exit(1);
});
