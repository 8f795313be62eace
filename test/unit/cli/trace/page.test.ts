import assert from "node:assert/strict";
import { test } from "node:test";
import { htmlPage } from "../../../../cli/trace/page.ts";
import { run, type SpanOutline, viewFrom } from "./traces.ts";

/** The data that the page's script reads. */
function dataIn(page: string) {
  return JSON.parse(/<script type="application\/json" id="trace">(.*?)<\/script>/s.exec(page)?.[1] ?? "");
}

test("nothing from a trace becomes markup", () => {
  const evil = `</script><script>alert("1")</script><!--<img src=x onerror=alert(2)>`;
  const everywhere: SpanOutline = {
    id: evil,
    name: evil,
    service: evil,
    error: evil,
    at: [0, 1],
    attributes: { [evil]: evil },
    events: [{ name: evil, timeMs: 0, attributes: { [evil]: evil } }],
    links: [{ traceId: evil, spanId: evil, attributes: {} }],
  };
  const page = htmlPage({ ...viewFrom(everywhere), runId: evil });
  const markup = page.replace(/<style>.*?<\/style>/s, "");
  assert.equal(markup.match(/<script/g)?.length, 2);
  assert.doesNotMatch(markup, /<img|<!--|<\/script>[^\n]/);
  assert.equal(dataIn(page).rows[0].details.attributes[evil], evil);
});

test("the page needs nothing from anywhere: no address, and a policy that forbids loading", () => {
  const page = htmlPage(viewFrom(...run));
  assert.doesNotMatch(page, /https?:|\bsrc=|\bhref=|@import|url\(/);
  assert.match(page, /default-src 'none'; .*script-src 'sha256-[\w+/=]+'/);
});

test("its lines have the bars of the spans, and the part of them that is on the critical path", () => {
  const { rows, services, shares } = dataIn(htmlPage(viewFrom(...run)));
  assert.deepEqual(services, ["pipeline", "ingestion", "training"]);
  const process = rows.find(({ label }: { label: string }) => label === "process a");
  assert.deepEqual(
    [process.bars, process.path],
    [
      [[20, 60]],
      [
        [20, 25],
        [50, 52],
      ],
    ],
  );
  assert.equal(shares[0].text, "130 ms, 65.0 %");
});

test("a hundred thousand spans make a page", () => {
  const spans = Array.from({ length: 100_000 }, (_, index): SpanOutline => {
    return { id: `s${index}`, ...(index > 0 && { parent: `s${index - 1}` }), at: [index, index + 5] };
  });
  assert.equal(dataIn(htmlPage(viewFrom(...spans))).rows.length, 100_000);
});
