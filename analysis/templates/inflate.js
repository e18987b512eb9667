"use strict";
// What the page carries is deflated and in base64. The browser inflates it beside the long script that comes next.
window.unpacked = async (text) => {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let index = 0; index < letters.length; index += 1) bytes[index] = letters.charCodeAt(index);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).text();
};
if (typeof DecompressionStream !== "undefined") {
  window.reportData = window.unpacked(document.getElementById("data").textContent.trim());
}
