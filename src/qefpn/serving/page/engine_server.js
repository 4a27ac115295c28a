// What makes the pictures of page.js: the server that the page came from.

export const where = "It is sent to the computer that runs this page, and not kept there.";
export const kinds = ["mask", "cutout", "edges", "blur"];
const QUERIES = {
  mask: "output_type=map", cutout: "output_type=rgba", edges: "output_type=edges", blur: "output_type=background&background=blur",
};
const LONGEST = 120_000;

export async function about() {
  const answer = await fetch("api/licence");
  return answer.ok ? answer.json() : {};
}

// A photograph (File) → {blob, facts}; `tell` is given what a wait is for.
export async function make(kind, file, signal, tell) {
  const begun = Date.now();
  for (;;) {
    const form = new FormData();
    form.append("file", file, "photograph");
    const answer = await fetch(`api/predict?${QUERIES[kind]}`, { method: "POST", body: form, signal });
    if (answer.status === 503 && Date.now() - begun < LONGEST) {
      tell("Others are being served first …");
      await new Promise((done) => setTimeout(done, 1000 * Number(answer.headers.get("Retry-After") || 1)));
      signal.throwIfAborted();
      continue;
    }
    if (!answer.ok) {
      const said = await answer.json().catch(() => ({}));
      throw new Error(said.error || `the server answered ${answer.status}`);
    }
    const told = (name) => answer.headers.get(`X-Solver-${name}`);
    const steps = told("Steps");
    const facts = steps === null ? null : {
      steps: Number(steps), residual: Number(told("Relative-Residual")), converged: told("Converged") === "true",
    };
    return { blob: await answer.blob(), facts };
  }
}
