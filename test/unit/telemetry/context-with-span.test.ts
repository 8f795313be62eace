/** Against trace.setSpan of the API, which does the same. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  createContextKey,
  INVALID_SPAN_CONTEXT,
  propagation,
  ROOT_CONTEXT,
  type Span,
  trace,
} from "@opentelemetry/api";
import { contextWithSpan } from "../../../lib/telemetry/context-with-span.ts";

const span = (): Span => trace.wrapSpanContext({ ...INVALID_SPAN_CONTEXT });
const [outer, inner] = [span(), span()];
const key = createContextKey("test");
const other = createContextKey("other");

test("it holds the span, and what was there before", () => {
  const before = propagation.setBaggage(ROOT_CONTEXT.setValue(key, "kept"), propagation.createBaggage());
  const context = contextWithSpan(before, outer);
  assert.equal(trace.getSpan(context), outer);
  assert.equal(context.getValue(key), "kept");
  assert.equal(propagation.getBaggage(context), propagation.getBaggage(before));
  assert.equal(trace.getSpan(before), undefined);
});

test("an inner span takes the place of the outer one, in its own context alone", () => {
  const outside = contextWithSpan(ROOT_CONTEXT.setValue(key, "kept"), outer);
  const inside = contextWithSpan(outside, inner);
  assert.equal(trace.getSpan(inside), inner);
  assert.equal(inside.getValue(key), "kept");
  assert.equal(trace.getSpan(outside), outer);
});

test("what is set or deleted leaves the span, and the context it was set in", () => {
  const context = contextWithSpan(ROOT_CONTEXT.setValue(other, "kept"), outer);
  const changed = context.setValue(key, "new");
  assert.equal(trace.getSpan(changed), outer);
  assert.deepEqual([changed.getValue(key), changed.getValue(other)], ["new", "kept"]);
  assert.equal(context.getValue(key), undefined);
  assert.equal(changed.deleteValue(key).getValue(key), undefined);
  assert.equal(context.deleteValue(other).getValue(other), undefined);
  assert.equal(trace.getSpan(context.deleteValue(other)), outer);
});

test("the span can be replaced and removed by the API's own functions", () => {
  const context = contextWithSpan(ROOT_CONTEXT, outer);
  assert.equal(trace.getSpan(trace.setSpan(context, inner)), inner);
  assert.equal(trace.getSpan(trace.deleteSpan(context)), undefined);
  assert.equal(trace.getSpan(contextWithSpan(trace.setSpan(context, inner), outer)), outer);
});
