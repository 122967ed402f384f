// The two-handled time range. The value is {start, end, duration} in seconds; `release` fires when a handle is let go.
const SMALLEST = 0.1;
const inputs = () => [...element.querySelectorAll('input')];
const clock = s => `${Math.floor(s / 60)}:${(s % 60).toFixed(1).padStart(4, '0')}`;

function paint() {
  const [from, to] = inputs();
  if (!from) return;
  const length = +from.max || 1;
  const track = element.querySelector('.ks-track');
  track.style.setProperty('--from', `${100 * from.value / length}%`);
  track.style.setProperty('--to', `${100 * to.value / length}%`);
  element.querySelector('.ks-from').textContent = clock(+from.value);
  element.querySelector('.ks-to').textContent = clock(+to.value);
}

element.addEventListener('input', event => {
  const [from, to] = inputs();
  if (event.target === from && +from.value > +to.value - SMALLEST) from.value = Math.max(0, +to.value - SMALLEST);
  if (event.target === to && +to.value < +from.value + SMALLEST) to.value = +from.value + SMALLEST;
  paint();
  const video = document.querySelector('#ks-player video');
  if (video && Number.isFinite(video.duration)) video.currentTime = +event.target.value;
});
element.addEventListener('change', () => {
  const [from, to] = inputs();
  props.value = { ...props.value, start: +from.value, end: +to.value };
  trigger('release');
});
watch('value', paint);
paint();
