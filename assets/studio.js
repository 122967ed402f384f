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

  // One listener for the whole page, in the capture phase: Gradio opens links of a chat in a new tab otherwise.
  document.addEventListener('click', event => {
    const link = event.target.closest('a[href*="#t="]');
    const mark = event.target.closest('[data-seek]');
    if (!link && !mark) return;
    event.preventDefault();
    event.stopPropagation();
    seek(parseFloat(mark ? mark.dataset.seek : link.getAttribute('href').split('#t=')[1]) || 0);
  }, true);

  const THEME = 'keye-studio-theme';
  const stored = localStorage.getItem(THEME);
  if (stored) document.addEventListener('DOMContentLoaded', () => document.body.classList.toggle('dark', stored === 'dark'));
  window.keyeTheme = () => {
    const dark = document.body.classList.toggle('dark');
    localStorage.setItem(THEME, dark ? 'dark' : 'light');
  };
})();
