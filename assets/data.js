// The cards of the Data tab: selecting, correcting, and asking again for pictures that are still being made.
const picked = () => [...element.querySelectorAll('.kx-pick:checked')].map(box => box.closest('.kx-card').dataset.answer);
const renew = () => {
  const count = picked().length, all = element.querySelector('.kx-all');
  element.querySelectorAll('[data-many]').forEach(button => { button.disabled = !count; });
  if (all) {
    const boxes = element.querySelectorAll('.kx-pick').length;
    all.checked = count > 0 && count === boxes;
    all.indeterminate = count > 0 && count < boxes;
  }
};
element.addEventListener('change', event => {
  if (event.target.matches('.kx-all'))
    element.querySelectorAll('.kx-pick').forEach(box => { box.checked = event.target.checked; });
  if (event.target.matches('.kx-all, .kx-pick')) renew();
});
const save = card => trigger('select', {act: 'correct', answers: [card.dataset.answer], text: card.querySelector('textarea').value});
element.addEventListener('click', event => {
  const many = event.target.closest('[data-many]'), one = event.target.closest('[data-act]');
  if (many && !many.disabled) trigger('select', {act: many.dataset.many, answers: picked()});
  if (!one) return;
  const card = one.closest('.kx-card');
  if (one.dataset.act === 'correct') save(card);
  else trigger('select', {...one.dataset, answers: [card.dataset.answer]});
});
element.addEventListener('keydown', event => {
  if (!event.target.matches('textarea')) return;
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) save(event.target.closest('.kx-card'));
  if (event.key === 'Escape') {
    const edit = event.target.closest('details');
    edit.open = false;
    edit.querySelector('summary').focus();
  }
});
element.addEventListener('toggle', event => {
  if (event.target.matches('.kx-edit') && event.target.open) event.target.querySelector('textarea').focus();
}, true);
element.addEventListener('error', event => {
  const picture = event.target, tries = Number(picture.dataset.tries || 0);
  if (!picture.matches('.kx-still img') || tries >= 12) return;
  picture.dataset.tries = tries + 1;
  picture.style.visibility = 'hidden';
  setTimeout(() => { picture.src = picture.src.split('?')[0] + '?again=' + (tries + 1); }, 400 * (tries + 1));
}, true);
element.addEventListener('load', event => {
  if (event.target.matches('.kx-still img')) event.target.style.visibility = '';
}, true);
