/* A page that is opened as a file may start no worker, and search is one. There a hidden frame runs the worker's script:
   `Worker` has the part of the browser's that search needs. Pages from a server keep the browser's own. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const own = new URL(url, location.href);
      const frame = document.createElement("iframe");
      frame.hidden = true;
      this.loaded = new Promise((done, failed) => {
        const start = () => {
          document.body.append(frame);
          const inner = frame.contentWindow;
          const load = (address) => new Promise((ready, wrong) => {
            const script = inner.document.createElement("script");
            script.src = new URL(address, own);
            script.onload = ready;
            script.onerror = wrong;
            inner.document.head.append(script);
          });
          inner.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
          inner.importScripts = (...addresses) =>
            addresses.reduce((before, address) => before.then(() => load(address)), Promise.resolve());
          load(own).then(() => done(inner), failed);
        };
        if (document.body) start();
        else addEventListener("DOMContentLoaded", start);
      });
      this.frame = frame;
    }

    postMessage(data) {
      this.loaded.then((inner) => inner.dispatchEvent(new inner.MessageEvent("message", { data })));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
