// The page's own behaviour: seeking from links and frames, the theme, and the enter key. No requests, no state.
(() => {
  const player = () => document.querySelector('#ks-player video');

  function seek(seconds) {
    const video = player();
    if (!video) return;
    video.currentTime = Math.min(seconds, Number.isFinite(video.duration) ? video.duration : seconds);
    const box = video.getBoundingClientRect();
    if (box.bottom < 0 || box.top > innerHeight) video.scrollIntoView({ behavior: 'smooth', block: 'center' });
  }

  window.keyeSeek = seek;

  // One listener for the whole page, in the capture phase: Gradio opens links of a chat in a new tab otherwise.
  document.addEventListener('click', event => {
    const link = event.target.closest('a[href*="#t="]');
    const mark = event.target.closest('[data-seek]');
    if (!link && !mark) return;
    event.preventDefault();
    event.stopPropagation();
    seek(parseFloat(mark ? mark.dataset.seek : link.getAttribute('href').split('#t=')[1]) || 0);
  }, true);

  // On a phone the list of conversations would cover the page: it begins closed, and closes once something is chosen.
  const narrow = () => matchMedia('(max-width: 768px)').matches;
  const closeList = () => {
    const toggle = document.querySelector('#ks-sidebar.open .toggle-button');
    if (toggle) toggle.click();
    return Boolean(toggle);
  };
  if (narrow()) {
    const began = Date.now();
    const waiting = setInterval(() => (closeList() || Date.now() - began > 20000) && clearInterval(waiting), 50);
  }
  document.addEventListener('click', event => {
    if (narrow() && event.target.closest('#ks-new, .ks-open')) setTimeout(closeList, 100);
  });

  // Answers that are compared are drawn anew as they grow: what somebody opened or closed stays so.
  const folds = new Map();
  const restore = fold => {
    const wanted = folds.get(fold.dataset.fold);
    if (wanted !== undefined && fold.open !== wanted) fold.open = wanted;
  };
  document.addEventListener('click', event => {
    const fold = event.target.closest('.ks-fold > summary')?.parentElement;
    if (fold) folds.set(fold.dataset.fold, !fold.open);
  });
  new MutationObserver(changes => {
    for (const { type, target, addedNodes } of changes) {
      if (type === 'attributes' && target.matches('.ks-fold')) restore(target);
      for (const node of addedNodes) if (node.querySelectorAll) node.querySelectorAll('.ks-fold').forEach(restore);
    }
  }).observe(document.documentElement, { subtree: true, childList: true, attributeFilter: ['open', 'data-fold'] });

  const THEME = 'keye-studio-theme';
  const stored = localStorage.getItem(THEME);
  if (stored) {
    // Gradio sets the system's theme while it mounts: ours is set until the page stands.
    const began = Date.now();
    const setting = setInterval(() => {
      if (document.body) document.body.classList.toggle('dark', stored === 'dark');
      if (document.querySelector('#ks-model .ks-model') || Date.now() - began > 20000) clearInterval(setting);
    }, 50);
  }
  window.keyeTheme = () => {
    const dark = document.body.classList.toggle('dark');
    localStorage.setItem(THEME, dark ? 'dark' : 'light');
  };
})();
