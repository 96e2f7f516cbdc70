/** Shows people to somebody, stores a like, and reads a refusal: `node example/dist/main.js http://127.0.0.1:3000`. */

import { answered, createDuet, DuetError } from "duet-client";

const [baseUrl = "http://127.0.0.1:3000", apiKey] = process.argv.slice(2);
const duet = createDuet({ baseUrl, ...(apiKey === undefined ? {} : { apiKey }) });

const page = await answered(duet.POST("/v1/recommendations", { body: { user_id: 1, limit: 3 } }));
const shown = page.items.map((person) => person.user_id);

const liked = shown[0];
if (liked === undefined) {
  throw new Error("there is nobody to show");
}
const event = { actor_id: 1, target_id: liked, kind: "like", request_id: page.request_id } as const;
const stored = await answered(duet.POST("/v1/interactions", { body: event }));

const person = await answered(duet.GET("/v1/people/{user_id}", { params: { path: { user_id: liked } } }));

let refused: DuetError | null = null;
try {
  await answered(duet.POST("/v1/recommendations", { body: { user_id: 1, limit: 1000 } }));
} catch (error) {
  if (!(error instanceof DuetError)) {
    throw error;
  }
  refused = error;
}

console.log(
  JSON.stringify({
    shown,
    status: stored.status,
    visible: person.visible,
    code: refused?.code,
    field: refused?.field,
    requestId: refused?.requestId,
  }),
);
