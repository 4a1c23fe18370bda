// The 3D viewer of the device's page: NiiVue with an image, its lesions, and the colours of their verdicts.
import { Niivue, SHOW_RENDER, SLICE_TYPE } from "@niivue/niivue";

const COLOURS = { undecided: [255, 176, 0], accepted: [45, 212, 191], rejected: [244, 114, 182] };
const OPACITY = 0.55;

/**
 * Show a study in three planes and 3D.
 *
 * options: image, lesions (addresses of NIfTI files), count (of lesions), window [low, high],
 * at (where to look: x, y, z in mm, RAS) and verdicts (lesion to "accepted" or "rejected").
 * Throws if the browser has no WebGL 2 or a file cannot be read.
 */
export async function openVolume(canvas, options) {
  if (!document.createElement("canvas").getContext("webgl2")) throw new Error("WebGL 2 is not available");
  const viewer = new Niivue({
    backColor: [0.02, 0.027, 0.04, 1],
    crosshairColor: [0.36, 0.78, 0.82, 0.6],
    crosshairWidth: 0.4,
    dragAndDropEnabled: false,
    isRadiologicalConvention: true,
    sagittalNoseLeft: true,
    isColorbar: false,
    logLevel: "error",
    loadingText: "",
    multiplanarShowRender: SHOW_RENDER.ALWAYS,
    show3Dcrosshair: true,
  });
  await viewer.attachToCanvas(canvas);
  await viewer.loadVolumes([
    { url: options.image, name: "image.nii", colormap: "gray", cal_min: options.window[0], cal_max: options.window[1] },
    { url: options.lesions, name: "lesions.nii", opacity: OPACITY },
  ]);
  if (viewer.volumes.length !== 2) throw new Error("the volumes could not be read");
  viewer.setSliceType(SLICE_TYPE.MULTIPLANAR);

  const handle = {
    jump(place) {
      viewer.scene.crosshairPos = viewer.mm2frac(place);
      viewer.updateGLVolume();
    },
    window(low, high) {
      Object.assign(viewer.volumes[0], { cal_min: low, cal_max: high });
      viewer.updateGLVolume();
    },
    show(visible) { viewer.setOpacity(1, visible ? OPACITY : 0); },
    colour(verdicts) {
      const numbers = [...Array(options.count).keys()].map((index) => index + 1);
      const colours = numbers.map((number) => COLOURS[verdicts[number] ?? "undecided"]);
      viewer.volumes[1].setColormapLabel({
        R: [0, ...colours.map((colour) => colour[0])],
        G: [0, ...colours.map((colour) => colour[1])],
        B: [0, ...colours.map((colour) => colour[2])],
        A: [0, ...numbers.map((number) => (verdicts[number] === "rejected" ? 90 : 255))],
        I: [0, ...numbers],
        labels: ["", ...numbers.map(String)],
      });
      viewer.updateGLVolume();
    },
  };
  handle.colour(options.verdicts);
  if (options.at) handle.jump(options.at);
  return handle;
}
