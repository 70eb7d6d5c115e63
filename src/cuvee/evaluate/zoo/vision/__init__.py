"""The vision zoo: fine-tunes of a convolutional network with batch normalisation, each for one kind of pictures."""
