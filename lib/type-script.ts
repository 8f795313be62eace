/** Whether Node runs our TypeScript by itself: from 24 on it removes the types, and understands `using`. Earlier versions need tsx. */
export const runsTypeScript: boolean = Number.parseInt(process.versions.node, 10) >= 24;

/** Options of Node before the file of a program in TypeScript. See docs/adr/0008-run-with-tsx.md. */
export const typeScriptOptions: readonly string[] = runsTypeScript ? [] : ["--import", "tsx"];
