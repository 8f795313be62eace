/** Looking up what must be there. */
import { AppError } from "../errors.ts";

/** The value of a name that somebody else in the compiler or engine has promised. INTERNAL where it is missing. */
export function named<T>(values: Readonly<Record<string, T>>, name: string): T {
  const value = values[name];
  if (value === undefined)
    throw new AppError("INTERNAL", `there is no ${name} among ${Object.keys(values).join(", ")}`);
  return value;
}
