"""Placeholders: an image in a line of text, for pages to show while the image itself loads.

A thumbnail of 32x32 pixels is coded as the integers of a pPCA (`models.thumbnail`) over low frequencies;
FORMAT-placeholders.md has every byte. `layout` is the transform, `tables` the integers of the weights,
`rangecoder` and `text` turn symbols into text, `encoding` chooses the symbols, `decoding` inverts all of it.
"""
