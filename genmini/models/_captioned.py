"""What models of images and their captions share: y is a text, or its numbers, and the words are those of the data.

    class Mine(Captioned):
        def __init__(self, shape, levels=2, vocabulary=(), length=40, ...):
            super().__init__(shape, levels, vocabulary, length)
        def loss(self, x, y=None):
            x, y = self.check(x, y, needed=True)             # y (N, L) int64, the numbers of words; 0 ends a text

`Model.of_data(train)` takes the words and L from data that were loaded with captions; `--set` does not know them.

    used by: genmini/models    test: tests/models/test_captioned.py
"""

from genmini.data.text import Words
from genmini.models._model import Model
from genmini.settings import whole


class Captioned(Model):
    captions = 4

    def __init__(self, shape, levels, vocabulary, length):
        """vocabulary: the words of captions; length: L, the words of the longest and its end"""
        super().__init__(shape, levels)
        whole(2, length=length)
        self.vocabulary, self.length = Words(vocabulary).vocabulary, length

    @classmethod
    def of_data(cls, train, **settings):
        if train.ways is None:
            raise ValueError(f"{cls.__name__} learns from captions, and {train.name} was loaded without them "
                             "(captions=4)")
        return super().of_data(train, vocabulary=train.words.vocabulary, length=train.y.shape[1], **settings)

    def check_y(self, y, n, needed=False):
        """A text for all, or a list of n, or numbers of words (L,) or (n, L) -> (n, L) int64 on the model's device;
        None stays None, unless it is needed"""
        if y is None and needed:
            raise ValueError("y is missing: a caption for all, or one each, as text or as numbers of words")
        return None if y is None else self.words.rows(y, n, self.length).to(self.device)
