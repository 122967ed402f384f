// Choosing among drafts: pick, reject, or rewrite in place. The drafts are drawn anew as others arrive; what somebody is
// writing stays. `select` fires with {draft, choice, text}.
const typed = new Map();  // draft → the text that is being written
const saving = new Set();

function paint(card) {
  const id = card.dataset.draft, form = card.querySelector('.kd-edit');
  if (!form) return;
  const area = form.querySelector('textarea');
  if (saving.has(id) && typed.get(id)?.trim() === card.dataset.best && card.dataset.choice) {
    saving.delete(id);
    typed.delete(id);
  }
  const open = typed.has(id);
  form.hidden = !open;
  card.querySelector('[data-say=open]')?.setAttribute('aria-expanded', String(open));
  if (open && area.value !== typed.get(id)) area.value = typed.get(id);
}
const paintAll = () => element.querySelectorAll('[data-draft]').forEach(paint);

element.addEventListener('input', event => {
  const card = event.target.closest('[data-draft]');
  if (card && event.target.matches('textarea')) typed.set(card.dataset.draft, event.target.value);
});
element.addEventListener('click', event => {
  const button = event.target.closest('[data-say]');
  if (!button || button.disabled) return;
  const card = button.closest('[data-draft]'), id = card.dataset.draft, said = button.dataset.say;
  if (said === 'open' && !typed.has(id)) {
    typed.set(id, card.dataset.best);
    paint(card);
    card.querySelector('textarea').focus();
  } else if (said === 'open' || said === 'cancel') {
    typed.delete(id);
    paint(card);
  } else if (said === 'save') {
    saving.add(id);
    trigger('select', { draft: id, choice: 'edited', text: typed.get(id) ?? '' });
  } else {
    trigger('select', { draft: id, choice: said, text: '' });
  }
});
new MutationObserver(paintAll).observe(element, { childList: true, subtree: true });
paintAll();
