/** Calls Duet, the platform for people-to-people recommendation: openapi-fetch over the types of its OpenAPI document. */

import retrying from "fetch-retry";
import createClient, { type Client, type Middleware } from "openapi-fetch";

import type { components, paths } from "./schema.js";

export type { components, paths } from "./schema.js";
export type Schemas = components["schemas"];
export type Duet = Client<paths, "application/json">;

export interface Settings {
  /** Where the service answers. */
  baseUrl: string;
  /** A key of `duet keys create`. */
  apiKey?: string;
  /** Most tries after the first; 3 where it is left out. */
  retries?: number;
  /** Milliseconds for one try; 10,000 where it is left out. */
  timeoutMs?: number;
  /** How requests are sent. */
  fetch?: (request: Request, init?: RequestInit) => Promise<Response>;
}

const BACKOFF_MS = 250;
/** Longest wait between two tries, whatever `Retry-After` says. */
const LONGEST_WAIT_MS = 120_000;
const FAILURES = new Set([429, 502, 503, 504]);

/** The service refused a call, or failed. */
export class DuetError extends Error {
  override readonly name = "DuetError";

  constructor(
    /** The HTTP status. */
    readonly status: number,
    /** What went wrong, to program against; `unexpected_answer` where the answer is none of Duet's. */
    readonly code: string,
    message: string,
    /** Each thing that is wrong with the request, with its field. */
    readonly details: readonly Schemas["ErrorDetail"][],
    /** `X-Request-ID` of the answer: the service's log has it. */
    readonly requestId: string | null,
    /** Seconds to wait before the next try; null where the service does not say. */
    readonly retryAfterS: number | null,
  ) {
    super(message);
  }

  /** Path of the first field that is wrong, dots between names; null where none is named. */
  get field(): string | null {
    return this.details.find((detail) => detail.field !== "")?.field ?? null;
  }
}

/**
 * Make a client with a method for each HTTP method: `duet.POST("/v1/recommendations", { body: { user_id: 42 } })`.
 *
 * Failed calls are sent again, after the seconds that `Retry-After` names. Interactions carry an event id, yours or one
 * made here, so that each is stored once. Other writes are repeated only where the service refused them before it
 * began, or where they leave the same behind however often they are sent (PUT, DELETE).
 */
export function createDuet(settings: Settings): Duet {
  const { retries = 3, timeoutMs = 10_000, fetch = globalThis.fetch } = settings;
  const once = (request: Request, _init?: RequestInit): Promise<Response> =>
    fetch(request, { signal: AbortSignal.any([request.signal, AbortSignal.timeout(timeoutMs)]) });
  const again = retrying(once, {
    retryDelay: (attempt, _error, response) => Math.min(waitMs(attempt, response), LONGEST_WAIT_MS),
  });
  const client = createClient<paths, "application/json">({
    baseUrl: settings.baseUrl,
    headers: settings.apiKey === undefined ? {} : { Authorization: `Bearer ${settings.apiKey}` },
    fetch: (request) => {
      const failures = isRepeatable(request) ? FAILURES : new Set([429]);
      return again(request, {
        retryOn: (attempt: number, error: Error | null, response: Response | null) =>
          attempt < retries &&
          !request.signal.aborted &&
          (response === null ? error !== null && isRepeatable(request) : failures.has(response.status)),
      });
    },
  });
  client.use(eventIds);
  return client;
}

/** Return the data of a call; throw DuetError where it was refused. */
export async function answered<T>(
  call: Promise<{ data?: T | undefined; error?: unknown; response: Response }>,
): Promise<T> {
  const { data, error, response } = await call;
  if (!response.ok || data === undefined) {
    throw refusal(error, response);
  }
  return data;
}

function refusal(error: unknown, response: Response): DuetError {
  const waits = response.headers.get("Retry-After") ?? "";
  const requestId = response.headers.get("X-Request-ID");
  const retryAfterS = /^\d+$/.test(waits) ? Number(waits) : null;
  if (isEnvelope(error)) {
    const { code, message, details } = error.error;
    return new DuetError(response.status, code, message, details, requestId, retryAfterS);
  }
  const message = `the answer ${response.status} does not come from Duet; is the address right?`;
  return new DuetError(response.status, "unexpected_answer", message, [], requestId, retryAfterS);
}

function isEnvelope(found: unknown): found is Schemas["ErrorEnvelope"] {
  return typeof found === "object" && found !== null && "error" in found && typeof found.error === "object";
}

function waitMs(attempt: number, response: Response | null): number {
  const waits = response?.headers.get("Retry-After") ?? "";
  const until = /^\d+$/.test(waits) ? Number(waits) * 1000 : Date.parse(waits) - Date.now();
  return until > 0 ? until : BACKOFF_MS * 2 ** attempt * Math.random();
}

/** Tell whether a request may be sent again after any failure: it writes nothing, or the same however often it is sent. */
function isRepeatable(request: Request): boolean {
  return (
    ["GET", "HEAD", "PUT", "DELETE"].includes(request.method) ||
    /\/v1\/(recommendations|interactions)(:|$)/.test(new URL(request.url).pathname)
  );
}

type Event = { event_id?: string | null };

const eventIds: Middleware = {
  async onRequest({ request, schemaPath }) {
    if (!schemaPath.startsWith("/v1/interactions")) {
      return undefined;
    }
    const body = (await request.clone().json()) as Event & { interactions?: Event[] };
    for (const event of body.interactions ?? [body]) {
      event.event_id ??= crypto.randomUUID();
    }
    return new Request(request, { body: JSON.stringify(body) });
  },
};
