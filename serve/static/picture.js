// Sizes and crops of a picture, in pixels of the picture as it is displayed (upright), which are the server's too.

const WIDEST = 640; // of a crop as it is drawn, twice its size on the page
const HIGHEST = 192;
const MOST_ENLARGED = 6; // times; a page of small words would take hundreds of megabytes otherwise
const STRIP = 36;

// A bitmap to be closed after use, or null where the browser cannot decode the file. An <img> would not do: its
// naturalWidth depends on the resolution in EXIF.
export function open(file) {
  return createImageBitmap(file).catch(() => null);
}

// The size up to which a picture counts as the crop of one word, in either orientation.
export function isOneWord({ width, height }) {
  return Math.max(width, height) <= 640 && Math.min(width, height) <= 240;
}

// Whether the server applies a rotation that browsers do not, so that boxes would be misplaced: that of EXIF in WebP, and
// where EXIF has none, that of XMP or of the raw profile that some programs write into PNG files.
export async function isTurnedByServerOnly(file) {
  const bytes = new TextDecoder("latin1").decode(await file.arrayBuffer());
  const webp = file.type === "image/webp";
  const offset = webp ? bytes.lastIndexOf("EXIF") : bytes.search(/Exif\0\0|eXIf/); // in WebP metadata follow the pixels
  // Tag 0x0112, one 16-bit number; in either byte order.
  const tag = /\x12\x01\x03\0\x01\0\0\0([\x01-\x08])|\x01\x12\0\x03\0\0\0\x01\0([\x01-\x08])/;
  const found = offset >= 0 && tag.exec(bytes.slice(offset, webp ? undefined : offset + 65536));
  if (found) return webp && (found[1] ?? found[2]) !== "\x01";
  return /tiff:Orientation(="|>)\s*[2-8]/.test(bytes) || bytes.includes("Raw profile type exif");
}

function surface(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width));
  canvas.height = Math.max(1, Math.round(height));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  return { canvas, context };
}

function part(bitmap, x, y, width, height, scale) {
  const { canvas, context } = surface(width * scale, height * scale);
  context.drawImage(bitmap, x, y, width, height, 0, 0, canvas.width, canvas.height);
  return canvas;
}

// What the network was given: a quadrilateral of the picture, rectified unless it is an upright box, then turned
// counter-clockwise; scaled to be looked at.
export function crop(bitmap, corners, upright, degrees = 0) {
  const xs = corners.map(([x]) => x);
  const ys = corners.map(([, y]) => y);
  const [x, y] = [Math.min(...xs), Math.min(...ys)];
  const side = (i) => Math.hypot(corners[(i + 1) % 4][0] - corners[i][0], corners[(i + 1) % 4][1] - corners[i][1]);
  const [width, height] = [Math.max(side(0), side(2)), Math.max(side(1), side(3))];
  const sideways = degrees % 180 !== 0;
  const scale = Math.min(WIDEST / (sideways ? height : width), HIGHEST / (sideways ? width : height), MOST_ENLARGED);
  const around = part(bitmap, x, y, Math.max(...xs) - x, Math.max(...ys) - y, scale);
  const moved = corners.map((corner) => [(corner[0] - x) * scale, (corner[1] - y) * scale]);
  const flat = upright ? around : flattened(around, moved, width * scale, height * scale);
  if (!degrees) return flat;
  const { canvas, context } = surface(sideways ? flat.height : flat.width, sideways ? flat.width : flat.height);
  context.translate(canvas.width / 2, canvas.height / 2);
  context.rotate((-degrees * Math.PI) / 180);
  context.drawImage(flat, -flat.width / 2, -flat.height / 2);
  return canvas;
}

// The homography from the unit square to a quadrilateral (Heckbert 1989), nearest pixels.
function flattened(source, [[x0, y0], [x1, y1], [x2, y2], [x3, y3]], width, height) {
  const [dx1, dy1, dx2, dy2] = [x1 - x2, y1 - y2, x3 - x2, y3 - y2];
  const [sx, sy] = [x0 - x1 + x2 - x3, y0 - y1 + y2 - y3];
  const determinant = dx1 * dy2 - dx2 * dy1;
  const [g, h] = [(sx * dy2 - dx2 * sy) / determinant, (dx1 * sy - sx * dy1) / determinant];
  const { canvas, context } = surface(width, height);
  const from = new Uint32Array(source.getContext("2d").getImageData(0, 0, source.width, source.height).data.buffer);
  const image = context.createImageData(canvas.width, canvas.height);
  const to = new Uint32Array(image.data.buffer);
  for (let row = 0; row < canvas.height; row++) {
    for (let column = 0; column < canvas.width; column++) {
      const [u, v] = [(column + 0.5) / canvas.width, (row + 0.5) / canvas.height];
      const w = g * u + h * v + 1;
      const x = Math.floor(((x1 - x0 + g * x1) * u + (x3 - x0 + h * x3) * v + x0) / w);
      const y = Math.floor(((y1 - y0 + g * y1) * u + (y3 - y0 + h * y3) * v + y0) / w);
      const inside = Math.min(Math.max(y, 0), source.height - 1) * source.width + Math.min(Math.max(x, 0), source.width - 1);
      to[row * canvas.width + column] = from[inside];
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

// A canvas with the crop and, below it, an empty strip; `look(map, covered)` darkens where the network did not look and
// fills the strip with bars, `look()` takes both away.
export function view(cropped) {
  const { canvas, context } = surface(cropped.width, cropped.height + STRIP);
  const look = (map, covered) => {
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.drawImage(cropped, 0, 0);
    if (!map) return;
    const seen = Math.max(1, covered * map[0].length); // columns; the rest is the canvas's padding
    const mask = surface(map[0].length, map.length);
    const image = mask.context.createImageData(mask.canvas.width, mask.canvas.height);
    const peak = Math.max(...map.flat(), 1e-9);
    map.flat().forEach((value, i) => { image.data[4 * i + 3] = 175 * (1 - Math.sqrt(value / peak)); });
    mask.context.putImageData(image, 0, 0);
    context.drawImage(mask.canvas, 0, 0, seen, map.length, 0, 0, cropped.width, cropped.height);
    const sums = columnSums(map);
    const most = Math.max(...sums, 1e-9);
    context.fillStyle = getComputedStyle(canvas).color;
    sums.forEach((sum, column) => {
      const height = (STRIP - 4) * (sum / most);
      context.fillRect((column / seen) * cropped.width, canvas.height - height, cropped.width / seen - 1, height);
    });
  };
  look();
  return { canvas, look };
}

function columnSums(map) {
  return map[0].map((_, column) => map.reduce((sum, row) => sum + row[column], 0));
}

// Where the middle of the attention lies: 0 at the crop's left edge, 1 at its right.
export function middle(map, covered) {
  const sums = columnSums(map);
  const total = sums.reduce((sum, value) => sum + value, 0) || 1;
  const column = sums.reduce((sum, value, i) => sum + value * (i + 0.5), 0) / total;
  return Math.min(1, column / Math.max(1, covered * sums.length));
}
