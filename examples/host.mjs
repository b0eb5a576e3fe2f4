// Reads crops with greedy.onnx in Node.js: npm install --ignore-scripts onnxruntime-node sharp (without CUDA libraries)
// node host.mjs GREEDY.onnx CROP …    (that and greedy.json: str-app export small --single-file --out small.onnx)
// In a browser use onnxruntime-web, and a canvas instead of sharp.
import { readFile } from "node:fs/promises";
import ort from "onnxruntime-node";
import sharp from "sharp";

const [graph, ...crops] = process.argv.slice(2);
const session = await ort.InferenceSession.create(graph);
const { charset, preprocessing } = JSON.parse(await readFile(graph.replace(/\.onnx$/, ".json"), "utf8"));
const { height, widths, widen_below } = preprocessing;
const characters = [...charset];

for (const path of crops) {
  const crop = sharp(await readFile(path)).removeAlpha().toColourspace("srgb");
  const size = await crop.metadata();
  let columns = (size.width * height) / size.height;
  if (columns < widen_below) columns = Math.sqrt(columns * widen_below);
  columns = Math.max(4, Math.min(Math.round(columns), widths.at(-1)));
  const width = widths.find((width) => width >= columns);
  const pixels = await crop.resize(columns, height, { fit: "fill", kernel: "linear" }).raw().toBuffer();
  const canvas = new Uint8Array(height * width * 3);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      for (let c = 0; c < 3; c++) canvas[(y * width + x) * 3 + c] = pixels[(y * columns + Math.min(x, columns - 1)) * 3 + c];
  const { classes, probabilities } = await session.run({
    canvases: new ort.Tensor("uint8", canvas, [1, height, width, 3]),
    widths: new ort.Tensor("int64", BigInt64Array.of(BigInt(columns)), [1]),
  });
  const text = [...classes.data].filter(Boolean).map((index) => characters[Number(index) - 1]).join("");
  console.log(path, text, probabilities.data.reduce((product, probability) => product * probability, 1).toFixed(3));
}
