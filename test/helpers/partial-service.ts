import type { DescService } from "@bufbuild/protobuf";
import type { ServiceImpl } from "@connectrpc/connect";
import { AppError } from "../../lib/errors.ts";
import { type RpcService, rpcService } from "../../lib/rpc/server.ts";

/** A service of which only some methods are there; the others refuse, which is a mistake of whoever calls them. */
export function partialService<Desc extends DescService>(
  service: Desc,
  methods: Partial<ServiceImpl<Desc>>,
): RpcService {
  const refuse = () => {
    throw new AppError("INTERNAL", `${service.name} has no such method here`);
  };
  const others = Object.fromEntries(service.methods.map(({ localName }) => [localName, refuse]));
  return rpcService(service, { ...others, ...methods } as ServiceImpl<Desc>);
}
