/**
 * TensorFlow.js as Millrace uses it: the Layers API to describe networks, and the JavaScript CPU backend, which is slow
 * but needs nothing native, to hold weights and to check results.
 */
import "@tensorflow/tfjs-backend-cpu";
import { enableProdMode } from "@tensorflow/tfjs-core";

// Without this the first operation prints an advertisement for tfjs-node.
enableProdMode();

export * as core from "@tensorflow/tfjs-core";
export * as layers from "@tensorflow/tfjs-layers";
