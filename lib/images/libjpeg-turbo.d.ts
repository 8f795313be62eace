/** What is used of a package that comes without types. */
declare module "@cornerstonejs/codec-libjpeg-turbo-8bit/decodewasmjs" {
  /** Decodes one image after another. */
  interface JpegDecoder {
    /** Memory to put a file of this many bytes into. */
    getEncodedBuffer(bytes: number): Uint8Array;
    /** Throws a number, an address of a C++ exception, for errors and for warnings. */
    decode(): void;
    /** The pixels, interleaved: RGB, or grey alone; valid until the next call. */
    getDecodedBuffer(): Uint8Array;
  }

  interface Codec {
    readonly JPEGDecoder: new () => JpegDecoder;
  }

  /** Compiles the library, once a call. */
  export default function createCodec(): Promise<Codec>;
}
