// The waveform and the transcript: a click or an arrow key seeks, the line of play and the chosen range move along, and
// what is said is shown on the player. The page around it is drawn anew now and then, so everything is looked up anew.
window.keyeSound?.abort();
window.keyeSound = new AbortController();
const signal = window.keyeSound.signal;
const player = () => document.querySelector('#ks-player video');
const wave = () => element.querySelector('.ks-wave');
const clock = s => `${Math.floor(s / 60)}:${String(Math.floor(s % 60)).padStart(2, '0')}`;
const STEP = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 };
let subtitled = true;

function seek(seconds) {
  const box = wave();
  if (box) window.keyeSeek(Math.max(0, Math.min(seconds, +box.dataset.duration)));
}

element.addEventListener('pointerdown', event => {
  const box = event.target.closest('.ks-wave');
  if (!box) return;
  const follow = move => {
    const frame = box.getBoundingClientRect();
    seek(Math.max(0, Math.min(1, (move.clientX - frame.left) / frame.width)) * +box.dataset.duration);
  };
  follow(event);
  box.setPointerCapture(event.pointerId);
  box.onpointermove = follow;
  box.onpointerup = box.onpointercancel = () => { box.onpointermove = null; };
});
element.addEventListener('keydown', event => {
  const box = event.target.closest('.ks-wave'), video = player();
  if (!box || !video) return;
  const length = +box.dataset.duration;
  let to = { Home: 0, End: length }[event.key];
  if (event.key in STEP) to = video.currentTime + STEP[event.key] * (event.shiftKey ? 5 : 1);
  if (to === undefined) return;
  event.preventDefault();
  seek(to);
});
element.addEventListener('click', event => {
  const button = event.target.closest('.ks-cc');
  if (!button) return;
  subtitled = !subtitled;
  subtitle();
});

function paint() {
  const box = wave(), video = player();
  if (!box || !video) return;
  const at = video.currentTime, length = +box.dataset.duration;
  box.style.setProperty('--at', `${Math.min(100, 100 * at / length)}%`);
  box.setAttribute('aria-valuenow', at.toFixed(1));
  box.setAttribute('aria-valuetext', clock(at));
  for (const line of document.querySelectorAll('#ks-lines [data-until]')) {
    line.toggleAttribute('data-now', at >= +line.dataset.seek && at < +line.dataset.until);
  }
}
function range() {
  const box = wave(), [from, to] = document.querySelectorAll('#ks-range input');
  if (!box || !from || !+from.max) return;
  const length = +box.dataset.duration;
  box.style.setProperty('--from', `${100 * from.value / length}%`);
  box.style.setProperty('--to', `${Math.min(100, 100 * to.value / length)}%`);
}

// The subtitles are a track of the player, made from the WebVTT text that came along; the player itself may be new.
let text = null, address = null;
function subtitle() {
  const video = player(), vtt = element.querySelector('.ks-vtt');
  element.querySelector('.ks-cc')?.setAttribute('aria-pressed', String(subtitled));
  if (!video) return;
  const now = vtt ? vtt.textContent : null;
  let track = video.querySelector('track.ks-track-said');
  if (now !== text || (track && track.src !== address)) {
    track?.remove();
    track = null;
    if (address && now !== text) { URL.revokeObjectURL(address); address = null; }
    text = now;
  }
  if (text === null) return;
  if (!address) address = URL.createObjectURL(new Blob([text], { type: 'text/vtt' }));
  if (!track) {
    track = document.createElement('track');
    Object.assign(track, { kind: 'subtitles', src: address, srclang: vtt.dataset.lang, label: vtt.dataset.label });
    track.className = 'ks-track-said';
    video.append(track);
  }
  track.track.mode = subtitled ? 'showing' : 'hidden';
}

// A word typed above the list leaves the lines that hold it, whatever its case, and marks nothing else.
function search(box) {
  const wanted = box.value.trim().toLocaleLowerCase();
  let hits = 0;
  for (const line of box.parentElement.querySelectorAll('li')) {
    const found = line.querySelector('span').textContent.toLocaleLowerCase().includes(wanted);
    line.hidden = !found;
    hits += found;
  }
  box.parentElement.querySelector('.ks-hits').textContent = wanted ? hits : '';
}

document.addEventListener('input', event => {
  if (event.target.closest('#ks-range')) range();
  if (event.target.matches('#ks-lines .ks-search')) search(event.target);
}, { signal });
for (const name of ['timeupdate', 'seeking', 'seeked', 'loadedmetadata']) {
  document.addEventListener(name, event => {
    if (!event.target.closest?.('#ks-player')) return;
    if (name === 'loadedmetadata') subtitle();
    paint();
  }, { signal, capture: true });
}
watch('value', () => { subtitle(); paint(); });
subtitle();
