import { servicePorts } from "../lib/config.ts";
import { AppError } from "../lib/errors.ts";
import { messageOf } from "./format.ts";

const usage = `Usage:

  npm start -- [options]            run everything on this machine: broker, services, one pipeline run (--help)
  npm run trace -- [id] [options]   draw the trace of a run in the terminal or as a page (--help)
  npm run service -- <name>         run one service against MILLRACE_NATS_URL: ${Object.keys(servicePorts).join(", ")}
`;

const [command = "help", ...rest] = process.argv.slice(2);

try {
  await run(command, rest);
} catch (thrown) {
  console.error(messageOf(thrown));
  process.exitCode = 1;
}

async function run(name: string, args: string[]): Promise<void> {
  switch (name) {
    case "start": {
      const { start } = await import("./start/start.ts");
      // Whatever is still under way, such as a download that Ctrl-C has interrupted, ends here.
      return process.exit(await start(args));
    }
    case "trace": {
      const { trace } = await import("./trace/trace.ts");
      return trace(args);
    }
    case "service":
      return runOneService(args[0] ?? "");
    case "help":
    case "--help":
      console.log(usage);
      return;
    default:
      throw new AppError("INVALID_REQUEST", `there is no command "${name}"\n\n${usage}`);
  }
}

async function runOneService(name: string): Promise<void> {
  if (!Object.hasOwn(servicePorts, name)) {
    throw new AppError("INVALID_REQUEST", `there is no service "${name}"\n\n${usage}`);
  }
  await import(`../services/${name}/main.ts`);
}
