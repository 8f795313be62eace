/** Where the person is: npm runs scripts in the package's folder, and tells in INIT_CWD where it was called. */
export const calledFrom = process.env.INIT_CWD ?? process.cwd();
