import { monitorEventLoopDelay, performance } from "node:perf_hooks";
import type { ObservedMetric } from "./metric-table.ts";
import { observeMetrics } from "./metrics.ts";

/** How often the delay of the event loop is sampled. A finer timer would cost more than what it measures. */
const resolutionMs = 20;
/** The delay is that of the last full window: several collectors may ask, and none may reset it for the others. */
const windowMs = 10_000;

const names: readonly ObservedMetric[] = [
  "process.cpu.time",
  "process.memory.usage",
  "process.uptime",
  "nodejs.eventloop.delay.mean",
  "nodejs.eventloop.delay.p99",
  "nodejs.eventloop.delay.max",
  "nodejs.eventloop.time",
];

/** Observes processor time, memory and the event loop of this process, until the function that it returns is called. */
export function observeProcess(): () => void {
  const delay = monitorEventLoopDelay({ resolution: resolutionMs });
  delay.enable();
  let window = { mean: 0, p99: 0, max: 0 };
  const nextWindow = () => {
    // The mean of nothing is NaN.
    if (delay.count === 0) return;
    window = { mean: delay.mean / 1e9, p99: delay.percentile(99) / 1e9, max: delay.max / 1e9 };
    delay.reset();
  };
  const timer = setInterval(nextWindow, windowMs).unref();
  const stopObserving = observeMetrics(names, ({ observe }) => {
    if (window.max === 0) nextWindow();
    const { user, system } = process.cpuUsage();
    observe("process.cpu.time", user / 1e6, { "cpu.mode": "user" });
    observe("process.cpu.time", system / 1e6, { "cpu.mode": "system" });
    observe("process.memory.usage", process.memoryUsage.rss(), {});
    observe("process.uptime", process.uptime(), {});
    observe("nodejs.eventloop.delay.mean", window.mean, {});
    observe("nodejs.eventloop.delay.p99", window.p99, {});
    observe("nodejs.eventloop.delay.max", window.max, {});
    const { active, idle } = performance.eventLoopUtilization();
    observe("nodejs.eventloop.time", active / 1e3, { "nodejs.eventloop.state": "active" });
    observe("nodejs.eventloop.time", idle / 1e3, { "nodejs.eventloop.state": "idle" });
  });
  return () => {
    stopObserving();
    clearInterval(timer);
    delay.disable();
  };
}
